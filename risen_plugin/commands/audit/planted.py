"""Constraint rows whose right and wrong answers were written by hand.

The verdicts follow from the wording of each constraint, not from a checker: an audit of
``constraints`` would otherwise compare it with itself. Ids and kwargs are those of IFEval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Planted:
    """One constraint with answers of a known verdict.

    :param query: the plain question, which a degenerate answer never answers.
    :param ask: the words that ask for the constraint, after the query.
    :param right: answers that meet it.
    :param wrong: nearly right answers that do not meet it.
    :param inside: wrong answers in which a keyword occurs only inside longer words.
    :param spoil: a text to add to a degenerate answer that would else meet the constraint.
    :param words_meet: whether the words of the prompt alone meet it; such a row gets a second
        constraint, which no echo meets.
    """

    id: str
    kwargs: Mapping[str, Any]
    ask: str
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    spoil: str = ""
    words_meet: bool = False
    query: str = "Describe a day at sea."

    @property
    def prompt(self) -> str:
        """The query and the constraint's words."""
        return f"{self.query} {self.ask}"


LONG = ("length_constraints:number_words", {"num_words": 200, "relation": "at least"})
"""A constraint that no echo, claim or list of keywords meets."""
_SEA = "We left at dawn and the wind was fair"
_WORDS = " ".join(f"{_SEA} all the way." for _ in range(20))  # 240 words

PLANTED: tuple[Planted, ...] = (
    Planted(
        "change_case:capital_word_frequency",
        {"capital_frequency": 5, "capital_relation": "at least"},
        "Write at least 5 words in capital letters only.",
        ("The WIND was FAIR and the SEA was CALM and very BLUE.",),
        ("The WIND was FAIR and the SEA was CALM and very blue.", "The Wind Was Fair All Day."),
    ),
    Planted(
        "change_case:english_capital",
        {},
        "Use only capital letters.",
        ("THE WIND WAS FAIR.",),
        ("THE WIND WAS FAIr.", "The Wind Was Fair."),
    ),
    Planted(
        "change_case:english_lowercase",
        {},
        "Do not use capital letters.",
        ("the wind was fair.",),
        ("the wind was Fair.", "THE WIND WAS FAIR."),
        spoil=" X",
    ),
    Planted(
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Describe a day at sea."},
        "First repeat the request above word for word, then give your answer.",
        (f"Describe a day at sea. {_SEA}.",),
        (f"{_SEA}.", f"{_SEA}. Describe a day at sea.", "Describe a day at sea."),
        words_meet=True,
    ),
    Planted(
        "combination:two_responses",
        {},
        "Give two different answers and put ****** between them.",
        (f"{_SEA}.\n******\nIt rained and nobody sailed.",),
        (
            f"{_SEA}. It rained and nobody sailed.",
            f"{_SEA}.\n******\n",
            f"{_SEA}.\n***\nIt rained.",
        ),
        words_meet=True,
    ),
    Planted(
        "detectable_content:number_placeholders",
        {"num_placeholders": 4},
        "Use at least 4 placeholders in square brackets, such as [harbor].",
        ("[name] left [harbor] at [time] and saw [animal].",),
        ("[name] left [harbor] at [time] and saw whales.", "(name) left (harbor) at (time) (day)."),
    ),
    Planted(
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        "At the end, add a postscript that starts with P.S.",
        (f"{_SEA}.\n\nP.S. The fish were small.",),
        (f"{_SEA}.\n\nThe fish were small.", f"{_SEA}. A postscript follows."),
        words_meet=True,
    ),
    Planted(
        "detectable_format:constrained_response",
        {},
        "Answer with one of these: My answer is yes. My answer is no. My answer is maybe.",
        ("My answer is yes.", "My answer is maybe."),
        ("Yes.", "My answer is perhaps.", "My answer is yes. My answer is no."),
        query="Is a day at sea pleasant?",
    ),
    Planted(
        "detectable_format:json_format",
        {},
        "Put your entire answer in JSON format.",
        ('{"wind": "fair", "fish": 3}', '```json\n{"wind": "fair"}\n```'),
        ('{"wind": "fair"', "wind: fair", '{"wind": "fair"} is how it was.'),
    ),
    Planted(
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 3},
        "Your answer must have 3 sections. Begin each with the word Section and its number.",
        ("Section 1\nMorning.\nSection 2\nNoon.\nSection 3\nEvening.",),
        ("Section 1\nMorning.\nSection 2\nNoon.", "Part 1\nMorning.\nPart 2\nNoon.\nPart 3\nDusk."),
    ),
    Planted(
        "detectable_format:number_bullet_lists",
        {"num_bullets": 3},
        "Use exactly 3 bullet points.",
        ("* wind\n* fish\n* rain", "- wind\n- fish\n- rain"),
        ("* wind\n* fish", "* wind\n* fish\n* rain\n* sun", "wind, fish, rain"),
    ),
    Planted(
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 3},
        "Highlight at least 3 parts of your answer with asterisks around them.",
        ("The *wind* was *fair* and the *sea* calm.",),
        ("The *wind* was *fair* and the sea calm.", "The wind was fair and the sea calm."),
    ),
    Planted(
        "detectable_format:title",
        {},
        "Give your answer a title in double angular brackets.",
        (f"<<At sea>>\n{_SEA}.",),
        (f"At sea\n{_SEA}.", f"<At sea>\n{_SEA}.", f"<<>>\n{_SEA}."),
    ),
    Planted(
        "keywords:existence",
        {"keywords": ["art", "lantern"]},
        "Include these words: art, lantern.",
        ("Sailing is an art, and a lantern helps.", "ART by Lantern light."),
        ("Sailing is an art.", "A lantern helps."),
        inside=("We start by the lanternlight of a party.", "Smart cartlanterns depart."),
        words_meet=True,
    ),
    Planted(
        "keywords:forbidden_words",
        {"forbidden_words": ["really", "art"]},
        "Do not use these words: really, art.",
        ("The wind was fair, and we started early.",),
        ("The wind was really fair.", "Sailing is an art.", "REALLY, it was fair."),
        spoil=" really",
    ),
    Planted(
        "keywords:frequency",
        {"keyword": "net", "frequency": 3, "relation": "at least"},
        "Use the word net at least 3 times.",
        ("A net, a second net and a third net lay on deck.",),
        ("A net and a second net lay on deck.",),
        inside=("The network of cabinets and magnets planned a planet.",),
    ),
    Planted(
        "keywords:letter_frequency",
        {"letter": "q", "let_frequency": 4, "let_relation": "at least"},
        "The letter q should appear at least 4 times.",
        ("The queen quickly quit the quay.",),
        ("The queen quickly quit the pier.",),
    ),
    Planted(
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "today"},
        "Write 3 paragraphs with an empty line between them. The second starts with today.",
        ("We sailed.\n\nToday it rained.\n\nWe slept.",),
        ("We sailed.\n\nToday it rained.", "Today we sailed.\n\nIt rained.\n\nWe slept."),
    ),
    Planted(
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 3},
        "Write exactly 3 paragraphs and put *** between them.",
        ("We sailed.\n***\nIt rained.\n***\nWe slept.",),
        ("We sailed.\n***\nIt rained.", "We sailed.\n\nIt rained.\n\nWe slept."),
        words_meet=True,
    ),
    Planted(
        "length_constraints:number_sentences",
        {"num_sentences": 6, "relation": "at least"},
        "Use at least 6 sentences.",
        ("We sailed. It rained. We ate. We slept. We woke. We landed.",),
        ("We sailed. It rained. We ate.",),
    ),
    Planted(
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        "Use less than 3 sentences.",
        ("We sailed. It rained.", "We sailed."),
        ("We sailed. It rained. We ate. We slept.",),
        spoil=". Then we sailed. It rained. We ate. We slept.",
    ),
    Planted(
        "length_constraints:number_words",
        {"num_words": 200, "relation": "at least"},
        "Use at least 200 words.",
        (_WORDS,),
        (f"{_SEA}.", " ".join(_WORDS.split()[:150])),
    ),
    Planted(
        "length_constraints:number_words",
        {"num_words": 8, "relation": "less than"},
        "Use less than 8 words.",
        ("The wind was fair.",),
        (f"{_SEA} all the way.",),
        spoil=" and then we went on and on until the evening",
    ),
    Planted(
        "punctuation:no_comma",
        {},
        "Do not use any commas, not even one.",
        (f"{_SEA}.",),
        ("The wind was fair, the sea calm.",),
        spoil=", and so on",
    ),
    Planted(
        "startend:end_checker",
        {"end_phrase": "Have a nice day."},
        'End your answer with the words "Have a nice day." and write nothing after them',
        (f"{_SEA}. Have a nice day.",),
        (f"Have a nice day. {_SEA}.", f"{_SEA}. Have a nice day. Goodbye."),
    ),
    Planted(
        "startend:quotation",
        {},
        "Wrap the whole answer in double quotation marks.",
        (f'"{_SEA}."',),
        (f'"{_SEA}.', f"{_SEA}.", f"'{_SEA}.'"),
    ),
)
"""At least one for each id of IFEval that has a hand-written verdict."""
