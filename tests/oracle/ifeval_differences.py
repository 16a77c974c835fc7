"""The classes of answers in which a check differs from IFEval's on purpose.

Each is a predicate on the answer, without tolerance: outside these classes every verdict has to
agree. ``docs/reference/constraints.md`` has an example and the reason for each.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import ifeval_reference

from risen_plugin.constraints import Constraint, variants

Predicate = Callable[[Any, str], bool]

_HIGHLIGHT = re.compile(r"(?<!\*)(\*\*?)(?=[^\s*])[^*\n]*(?<=[^\s*])\1(?!\*)")
_JAPANESE = dict.fromkeys(("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"), "JAPANESE")
_ENGLISH = re.compile(r"\b(?:here|it|so|one|two|day|answer|that|name)\b", re.IGNORECASE)
_OPTION = re.compile(r"My answer is (?:yes|no|maybe)\.")


def named(constraint: Constraint, text: str) -> list[str]:
    """The classes that the answer belongs to."""
    classes = CLASSES.get(constraint.id, {})
    return [name for name, applies in classes.items() if applies(constraint, text)]


def named_loosely(constraint: Constraint, text: str) -> list[str]:
    """The classes that decide the loose verdict: none if a variant outside of them is right."""
    found = {}
    for variant in variants(text):
        if variant.strip():
            found[variant] = named(constraint, variant)
            if not found[variant] and constraint.check(variant):
                return []
    return sorted({name for names in found.values() for name in names})


def _decomposed(_: Any, text: str) -> bool:
    """An accent is a character of its own, or the text has marks of such scripts."""
    return any(unicodedata.category(c) in ("Mn", "Mc", "Me", "Cf") for c in text)


def _not_english(_: Any, text: str) -> bool:
    return ifeval_reference.language(text) != "en"


def _echo(one: Any, text: str) -> bool:
    text, prompt = text.strip().lower(), one.prompt_to_repeat.strip().lower()
    return text.startswith(prompt) and not any(map(str.isalnum, text[len(prompt) :]))


def _hardly_different(_: Any, text: str) -> bool:
    parts = ["".join(part.casefold().split()) for part in text.split("******")]
    answers = [part for part in parts if part]
    return len(answers) == 2 and answers[0] == answers[1]


def _empty_brackets_or_links(_: Any, text: str) -> bool:
    return re.search(r"\[\s*\]|\[[^\]\n]*\]\(", text) is not None


def _no_real_postscript(one: Any, text: str) -> bool:
    """Some marker stands inside a word or marker, or has no text after it."""
    known = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    marker = one.postscript_marker
    pattern = known.get(marker) or re.escape(marker.lower())
    found = list(re.finditer(pattern, text.lower()))
    return any(
        re.match(r"[\w.]", text[max(0, one_found.start() - 1) : one_found.start()])
        or not re.match(r"\.?[\W_]*\w", text[one_found.end() :])
        or re.match(r"\w", text[one_found.end() :])
        for one_found in found
    )


def _several_options(_: Any, text: str) -> bool:
    return len(set(_OPTION.findall(text))) > 1


def _no_container(_: Any, text: str) -> bool:
    """JSON, but neither an object nor an array, or with ``NaN`` inside."""
    text = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE)
    constants: list[str] = []
    try:
        value = json.loads(text, parse_constant=constants.append)
    except ValueError:
        return False
    return bool(constants) or not isinstance(value, dict | list)


def _mentions_a_section(one: Any, text: str) -> bool:
    splitter = re.escape(one.section_spliter)
    everywhere = re.findall(rf"{splitter}\s?\d+", text)
    at_starts = re.findall(rf"^[ \t>#*_-]*{splitter}\s?\d+", text, re.MULTILINE)
    return len(everywhere) != len(at_starts)


def _no_bullet_in_markdown(_: Any, text: str) -> bool:
    """A line begins with one mark that is no bullet, or a bullet stands behind an opening ``"``."""
    lines = text.split("\n")
    marked = [line for line in lines if re.match(r"\s*(?:\*(?!\*)|-)", line)]
    clear = all(re.match(r"[ \t]*[*-][ \t]+[^\s*-]", line) for line in marked)
    return not clear or re.match(r'\s*"\s*[*-]', text) is not None


def _stars_that_highlight_nothing(_: Any, text: str) -> bool:
    """Not so for a line of stars, and for a single one in a line."""
    return any(
        "*" in _HIGHLIGHT.sub("", line) and line.count("*") > 1 and line.strip(" *")
        for line in text.split("\n")
    )


def _inside_a_word(one: Any, text: str) -> bool:
    keywords = getattr(one, "keywords", None) or [one.keyword]
    return any(
        re.search(rf"\w{re.escape(keyword)}|{re.escape(keyword)}\w", text, re.IGNORECASE)
        for keyword in keywords
    )


def _underscores_at_the_word(one: Any, text: str) -> bool:
    return any(
        re.search(rf"_{re.escape(word)}|{re.escape(word)}_", text, re.IGNORECASE)
        for word in one.forbidden_words
    )


def _no_letter(one: Any, _: str) -> bool:
    """The reference draws one in its place, each time anew."""
    return not re.fullmatch("[a-z]", one.letter, re.IGNORECASE)


def _underscores_alone(_: Any, text: str) -> bool:
    return re.search(r"\b_+\b", text) is not None


def _other_blank_lines(_: Any, text: str) -> bool:
    """Blank lines that are not just one empty one, or any at an end."""
    return re.search(r"\n\s*\n\s*\n|\n[^\S\n]+\n", text) is not None or text != text.strip()


def _marks_at_the_first_word(one: Any, text: str) -> bool:
    """Its paragraph begins with other marks than quotation marks, or there are some inside."""
    parts = [part for part in text.split("\n\n") if part.strip()]
    if len(parts) < one.nth_paragraph:
        return False
    token = parts[one.nth_paragraph - 1].split()[0].strip("\"'")
    return re.search("[^\\w.,?!]", token) is not None or not token[:1].isalnum()


def _stars_that_divide_nothing(_: Any, text: str) -> bool:
    return re.search(r"\S\*\*\*|\*\*\*\S", text) is not None


def _unclear_sentence_ends(_: Any, text: str) -> bool:
    """Marks that end no sentence, or may not: all but one mark after a word, before white space."""
    ends = re.compile(r"(?<=\w)[.!?](?=\s|$)")
    rest = ends.sub("", text)
    return re.search(r"[.!?\u2026\u3002\uff01\uff1f\u0964\u061f\u06d4]", rest) is not None or (
        re.search(r"\b(?:\w|Dr|e\.g|no|fig|etc|st|co)\.", text, re.IGNORECASE) is not None
    )


def _sentence_without_a_word(_: Any, text: str) -> bool:
    """No letter or digit, of which the reference makes a sentence."""
    return not re.search(r"\w", re.split(r"[.!?]\s", text)[-1])


def _apostrophes_or_joints(_: Any, text: str) -> bool:
    """In a word with a capital, a mark that nltk cuts at and this does not, or the reverse."""
    return any(
        re.search(r"[A-Z]", token) and re.search(r"\w['\u2019`./*|]+\w|['\u2019`*]", token)
        for token in text.split()
    )


def _space_before_the_closing_mark(_: Any, text: str) -> bool:
    return re.search(r'\s"+\s*\Z', text) is not None


def _commas_of_other_scripts(_: Any, text: str) -> bool:
    return (
        re.search("[\u055d\u060c\u07f8\u1802\u3001\ufe10\ufe11\ufe50\ufe51\uff0c\uff64]", text)
        is not None
    )


def _nothing_between_the_marks(_: Any, text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"' and not text.strip('"').strip()


def _english_mixed_in(one: Any, text: str) -> bool:
    return one.language != "en" and _ENGLISH.search(text) is not None


def _devanagari(_: Any, text: str) -> bool:
    """Hindi, Marathi or Nepali, which the reference takes for one another."""
    return re.search("[\u0900-\u097f]", text) is not None


def _little_text(_: Any, text: str) -> bool:
    """Different words of less than 60 bytes, about two short sentences, are little to tell by."""
    return sum(len(word.encode()) for word in set(text.split())) < 60


def _two_scripts(_: Any, text: str) -> bool:
    """Letters of more than one script, kana and Chinese characters being one."""
    scripts = {unicodedata.name(c).split(" ")[0] for c in text if c.isalpha()}
    return len({_JAPANESE.get(script, script) for script in scripts}) > 1


_WORDS = {"combining marks": _decomposed, "inside another word": _inside_a_word}
CLASSES: Mapping[str, Mapping[str, Predicate]] = {
    "change_case:capital_word_frequency": {"marks inside words": _apostrophes_or_joints},
    "change_case:english_capital": {"not English to the detector": _not_english},
    "change_case:english_lowercase": {"not English to the detector": _not_english},
    "combination:repeat_prompt": {"an echo alone": _echo},
    "combination:two_responses": {"hardly different answers": _hardly_different},
    "detectable_content:number_placeholders": {"no placeholder": _empty_brackets_or_links},
    "detectable_content:postscript": {"no real postscript": _no_real_postscript},
    "detectable_format:constrained_response": {"several options": _several_options},
    "detectable_format:json_format": {"neither object nor array": _no_container},
    "detectable_format:multiple_sections": {"a mention": _mentions_a_section},
    "detectable_format:number_bullet_lists": {"no bullet in Markdown": _no_bullet_in_markdown},
    "detectable_format:number_highlighted_sections": {
        "stars that highlight nothing": _stars_that_highlight_nothing
    },
    "keywords:existence": _WORDS,
    "keywords:forbidden_words": {
        "combining marks": _decomposed,
        "underscores at the word": _underscores_at_the_word,
    },
    "keywords:frequency": _WORDS,
    "keywords:letter_frequency": {"combining marks": _decomposed, "no letter": _no_letter},
    "language:response_language": {
        "little text": _little_text,
        "two scripts": _two_scripts,
        "English mixed in": _english_mixed_in,
        "Devanagari": _devanagari,
    },
    "length_constraints:nth_paragraph_first_word": {
        "other blank lines": _other_blank_lines,
        "marks at the first word": _marks_at_the_first_word,
    },
    "length_constraints:number_paragraphs": {
        "stars that divide nothing": _stars_that_divide_nothing
    },
    "length_constraints:number_sentences": {
        "unclear sentence ends": _unclear_sentence_ends,
        "a sentence without a word": _sentence_without_a_word,
    },
    "length_constraints:number_words": {
        "combining marks": _decomposed,
        "underscores alone": _underscores_alone,
    },
    "punctuation:no_comma": {"commas of other scripts": _commas_of_other_scripts},
    "startend:end_checker": {"white space before the closing mark": _space_before_the_closing_mark},
    "startend:quotation": {"nothing between the marks": _nothing_between_the_marks},
}
