"""Constraints that fit their task and one another: tables of tasks, of pairs, and of real sets."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.builtin.generators import Constraints
from risen_plugin.constraints import KNOWN, clash, contradict, lexicon, parse
from risen_plugin.constraints.core import phrases
from risen_plugin.errors import DataError
from risen_plugin.instructions.fitting import Task, amounts_suit, suitable, task_of
from risen_plugin.instructions.validity import fault_of_constraints

ROOT = Path(__file__).parents[2]
CASE = {"change_case:english_capital", "change_case:english_lowercase"}
LENGTHS = {
    "length_constraints:number_words",
    "length_constraints:number_sentences",
    "letters:letter_counting",
}
PARTS = {"detectable_format:number_bullet_lists", "length_constraints:number_paragraphs"}
REPEAT, TITLE, TWO = (
    "combination:repeat_prompt",
    "detectable_format:title",
    "combination:two_responses",
)

# What a task asks for


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("Write a Python function that sorts a list.", "artifact"),
        ("Generate the regular expression based on the description.", "artifact"),
        ("Convert the given description to a bash command.", "artifact"),
        ("Translate the sentence into plain words.\n\nCarpe diem.", "fixed"),
        ("Classify the tweet.\n\nWhat a day!", "fixed"),
        ("How many legs has a spider?", "fixed"),
        ("Who wrote this book?", "fixed"),
        ("Repeat the sentence word for word.\n\nAll is well.", "fixed"),
        ("Is the moon smaller than the earth?", "yes or no"),
        ("Write a slogan for a bakery.", "line"),
        ("Tell me a joke about ducks.", "line"),
        ("Write a poem about the wind.", "verse"),
        ("Write an email to my neighbor about the fence.", "message"),
        ("Write a dialogue between a cat and a dog.", "script"),
        ("Write a story about a lost key.", "long"),
        ("Suggest games for a rainy day.", "list"),
        ("Explain why the sky is blue.", "explanation"),
        ("Describe a river and what grows along its banks.", "explanation"),
        ("Tell me about the number 7.", "explanation"),
        ("What happens at night?", "question"),
        ("Bananas", "question"),
    ],
)
def test_the_kind_of_a_task_is_read_from_its_words(query: str, kind: str) -> None:
    assert task_of(query).kind == kind


def test_a_choice_of_two_is_no_question_of_yes_or_no() -> None:
    assert task_of("Is it a tale or a fact?").kind != "yes or no"


@pytest.mark.parametrize(
    ("query", "unfit"),
    [
        ("List the top 10 films of the year.", LENGTHS | PARTS | {TWO}),
        ("Suggest three ways to stay warm.", LENGTHS | PARTS),
        ("Explain in two paragraphs why the sky is blue.", LENGTHS | PARTS),
        ("Briefly explain why the sky is blue.", LENGTHS | PARTS),
        ("Explain each step in a short sentence.", LENGTHS | PARTS),
        ("Generate the regular expression based on the description.", CASE | {TITLE}),
        ("Write a Python function that sorts a list.", CASE | LENGTHS | PARTS | {"json"}),
        ("Repeat the text word for word.\n\nAll is well.", set(KNOWN)),
        ("Classify the tweet. Output only the label.\n\nWhat a day!", set(KNOWN)),
        ("Rewrite the sentence.\n\nAll is well.", CASE | LENGTHS | PARTS),
        ("Explain the rules without using the word card.", {"keywords:existence"} | CASE),
        ("Erkl\u00e4re mir bitte genau, warum der Himmel blau ist.", CASE | {"keywords:existence"}),
        ("Write a poem in Spanish.", CASE | {"keywords:existence", "startend:end_checker"}),
        ("Write an email to my neighbor about the fence.", {"startend:end_checker", TITLE}),
        (f"Explain this. {'It is long. ' * 50}", {REPEAT}),
    ],
)
def test_what_a_task_settles_is_asked_for_by_nothing_else(query: str, unfit: set[str]) -> None:
    assert not suitable(task_of(query)) & unfit


@pytest.mark.parametrize(
    ("query", "fit"),
    [
        ("Explain why the sky is blue.", CASE | LENGTHS | PARTS | {REPEAT, TITLE}),
        ("Write a story about a lost key.", LENGTHS | {TITLE, "keywords:existence"}),
        ("Suggest games for a rainy day.", {"detectable_format:json_format", TITLE}),
        ("Is the moon smaller than the earth?", {"detectable_format:constrained_response"}),
        ("Write a slogan for a bakery.", {TWO, "startend:quotation"} | CASE),
    ],
)
def test_an_open_task_leaves_room(query: str, fit: set[str]) -> None:
    assert suitable(task_of(query)) >= fit


def test_what_suits_a_kind_is_known() -> None:
    queries = ["Explain it.", "Write code.", "Write a poem.", "List things.", "Why?"]
    assert all(suitable(task_of(query)) <= set(KNOWN) for query in queries)


def made(*pairs: tuple[str, dict[str, Any]]) -> list[Any]:
    return [parse(id_, kwargs) for id_, kwargs in pairs]


@pytest.mark.parametrize(
    ("kind", "pairs", "suits"),
    [
        ("long", [("num_words", 60, "less than")], False),
        ("long", [("num_words", 250, "less than")], True),
        ("question", [("num_words", 60, "less than")], True),
        ("question", [("num_words", 250, "at least")], False),
        ("explanation", [("num_words", 90, "less than"), ("num_sections", 4)], False),
        ("explanation", [("num_words", 200, "less than"), ("num_sections", 4)], True),
        ("question", [("num_paragraphs", 6)], False),
    ],
)
def test_amounts_suit_the_task_and_one_another(kind: Any, pairs: Any, suits: bool) -> None:
    places = {
        "num_words": ("length_constraints:number_words", {}),
        "num_sections": ("detectable_format:multiple_sections", {"section_spliter": "Part"}),
        "num_paragraphs": ("length_constraints:number_paragraphs", {}),
    }
    constraints = []
    for name, amount, *relation in pairs:
        id_, more = places[name]
        limit = {"relation": relation[0]} if relation else {}
        constraints.append(parse(id_, {name: amount, **more, **limit}))
    assert amounts_suit(constraints, Task(kind)) is suits


# Pairs

ALL_BUT = {
    "detectable_format:json_format": {"keywords:forbidden_words", "keywords:existence"},
    "combination:repeat_prompt": {"keywords:existence", TITLE, "punctuation:no_comma"},
    "detectable_format:constrained_response": set(),
}
"""Ids that IFEval's table keeps apart from all but these."""
PAIRS = [
    ("language:response_language", "detectable_format:multiple_sections"),
    ("language:response_language", "keywords:forbidden_words"),
    ("length_constraints:number_paragraphs", "length_constraints:number_sentences"),
    ("length_constraints:number_paragraphs", "length_constraints:nth_paragraph_first_word"),
    ("detectable_format:multiple_sections", "detectable_format:number_highlighted_sections"),
    ("change_case:capital_word_frequency", "change_case:english_lowercase"),
    ("change_case:english_capital", "change_case:english_lowercase"),
    ("startend:quotation", TITLE),
    ("combination:two_responses", "length_constraints:number_words"),
    ("combination:two_responses", "change_case:english_capital"),
    ("paragraphs:paragraphs", "paragraphs:paragraphs2"),
    ("first_word:first_word_sent", "first_word:first_word_answer"),
    ("count:counting_composition", "keywords:letter_frequency"),
]
"""Pairs that the tables of IFEval and IFTrain keep apart."""


def test_what_the_originals_keep_apart_clashes() -> None:
    for id_, others in ALL_BUT.items():
        assert all(clash(id_, other) for other in KNOWN.keys() - others)
    assert all(clash(*pair) for pair in PAIRS)


def test_what_contradicts_clashes_and_not_the_other_way_round() -> None:
    for pair in itertools.combinations(KNOWN, 2):
        assert contradict(*pair) is contradict(*pair[::-1])
        assert clash(*pair) or not contradict(*pair)
    assert clash(REPEAT, "keywords:frequency")
    assert not contradict(REPEAT, "keywords:frequency")


OFFICIAL = [
    # Keys 1122, 1129, 1705 and 3188 of IFEval: an answer can meet them.
    [
        ("change_case:english_lowercase", {}),
        (
            "keywords:letter_frequency",
            {"let_relation": "at least", "letter": "#", "let_frequency": 4},
        ),
    ],
    [
        (
            "keywords:letter_frequency",
            {"let_relation": "at least", "letter": "!", "let_frequency": 6},
        ),
        (REPEAT, {"prompt_to_repeat": 'Write a pitch. Contain 6 or more "!" in your response.'}),
    ],
    [
        ("detectable_content:postscript", {"postscript_marker": "P.P.S"}),
        ("startend:end_checker", {"end_phrase": "Hope you agree with me."}),
    ],
    [
        (
            "change_case:capital_word_frequency",
            {"capital_relation": "less than", "capital_frequency": 4},
        ),
        (
            "change_case:capital_word_frequency",
            {"capital_relation": "at least", "capital_frequency": 1},
        ),
        ("keywords:frequency", {"relation": "less than", "keyword": "future", "frequency": 2}),
    ],
]
IMPOSSIBLE = {1627, 3369, 3371, 3718, 374}
"""Keys of IFEval that ask for the prompt itself and forbid a word or comma of it."""


@pytest.mark.parametrize("asked", OFFICIAL, ids=["1122", "1129", "1705", "3188"])
def test_an_official_set_that_can_be_met_is_no_contradiction(asked: Any) -> None:
    ids, kwargs = zip(*asked, strict=True)
    row = {"prompt": "Go on.", "instruction_id_list": list(ids), "kwargs": list(kwargs)}
    assert fault_of_constraints(row, "Go on.") is None


def test_of_the_official_sets_only_those_are_refused_that_nobody_can_meet() -> None:
    folder = Path(os.environ.get("RISEN_SHARED_DATA", ROOT.parent / "shared" / "data"))
    path = folder / "ifeval_real" / "gpt4.jsonl"
    if not path.is_file():
        pytest.skip(f"there is no {path}; RISEN_SHARED_DATA names another folder")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    refused = {row["key"] for row in rows if fault_of_constraints(row, row["prompt"]) is not None}
    assert refused == IMPOSSIBLE


# What is generated

TASKS = [
    "Describe a day at the sea.",
    "Write a story about a lost key.",
    "Write a poem about the wind.",
    "Write a letter to a neighbor about a tree.",
    "Write a slogan for a bakery.",
    "Suggest games for a rainy day.",
    "What happens at night?",
    "List the top 10 films of the year.",
    "Generate the regular expression based on the description.",
    "Is the moon smaller than the earth?",
]


def generated(count: int, **options: Any) -> Iterator[Any]:
    return Constraints(prompts=TASKS, maximum=4, **options)(count=count, seed=0)


def test_of_2000_generated_sets_none_has_a_conflict_or_an_unfit_constraint() -> None:
    for row in generated(2000):
        task = task_of(row["query"][0]["content"])
        ids = row["instruction_id_list"]
        assert not any(clash(*pair) for pair in itertools.combinations(ids, 2))
        assert set(ids) <= suitable(task)
        assert amounts_suit(made(*zip(ids, row["kwargs"], strict=True)), task)


def test_a_task_that_nothing_fits_gives_way_to_another_and_is_counted() -> None:
    prompts = ["Output only the label.", "Explain why the sky is blue."]
    generator = Constraints(prompts=prompts)
    rows = list(generator(count=20, seed=0))
    assert {row["query"][0]["content"] for row in rows} == set(prompts[1:])
    assert generator.report().dropped["no constraint fits"] >= 10


def test_without_fit_anything_that_agrees_is_added() -> None:
    [row] = Constraints(prompts=["Output only the label."], fit=False)(count=1, seed=0)
    assert row["level"] >= 1


# Words


def test_the_lexicon_is_large_and_its_words_are_plain() -> None:
    assert len(set(lexicon.COMMON)) == len(lexicon.COMMON) >= 1500
    everything = {*lexicon.COMMON, *lexicon.FILLERS, *lexicon.OPENERS, *lexicon.ENDINGS}
    assert all(word.isascii() and word.isalpha() and word.islower() for word in everything)
    assert all(3 <= len(word) <= 15 for word in lexicon.COMMON if word not in {"go", "be"})


def test_words_of_the_prompt_are_among_those_asked_for() -> None:
    prompt = "Describe a river and the garden beside it."
    asked = [
        word
        for seed in range(200)
        for word in lexicon.fitting_words(random.Random(seed), 1, prompt)
    ]
    own = sum(word in ("river", "garden") for word in asked)
    assert 60 < own < 140
    assert len(set(asked)) > 80


def test_a_single_word_and_several_are_named_rightly() -> None:
    assert phrases(["tea"], "or") == 'the word "tea"'
    assert phrases(["tea", "milk"], "or") == 'the words "tea" or "milk"'
    assert phrases(["green tea"], "and") == 'the phrase "green tea"'


def test_ids_that_somebody_named_need_not_fit_unless_that_is_asked_for() -> None:
    words: dict[str, Any] = {
        "prompts": ["List the top 10 films of the year."],
        "maximum": 1,
    }
    named = {**words, "ids": ["length_constraints:number_words"]}
    [row] = Constraints(**named)(count=1, seed=0)
    assert row["instruction_id_list"] == ["length_constraints:number_words"]
    with pytest.raises(DataError, match="no constraint fits"):
        list(Constraints(**named, fit=True)(count=1, seed=0))
