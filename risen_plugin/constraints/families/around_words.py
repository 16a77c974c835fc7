"""Constraints on the marks around each word or sentence: more of ``detectable_format``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from risen_plugin.constraints.core import Constraint, counted, quoted
from risen_plugin.constraints.text import count_sentences

_JOINT = re.compile("(?<=[.!?\u2026\"'\u201d\u2019)])-(?=\\S)")
_BRACKETED = re.compile(r"\[([^\[\]\s]+)\]")
_BIGRAM = re.compile(r"<<([^<>\s]+)\s+([^<>\s]+)>>")
_LAST_WORD = re.compile(r"(?:<<)?[^<>\s]+(?:>>)?")


@dataclass(frozen=True)
class SentenceHyphens(Constraint):
    """Two sentences or more with a hyphen and no space between each two: ``One.-Two.-Three.``

    The original accepts a single sentence, and takes a hyphen inside a word for a joint.
    """

    id = "detectable_format:sentence_hyphens"
    wordings = (
        "Write two or more sentences and join them with hyphens instead of spaces, "
        'such as "This is one.-This is another."',
        "Put a hyphen, and no space, between each sentence and the next. Use two or more "
        "sentences.",
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "combination:two_responses",
            "detectable_content:postscript",
            "detectable_format:bigram_wrapping",
            "detectable_format:constrained_response",
            "detectable_format:json_format",
            "detectable_format:multiple_sections",
            "detectable_format:number_bullet_lists",
            "detectable_format:square_brackets",
            "detectable_format:title",
            "first_word:first_word_sent",
            "keywords:keyword_specific_position",
            "last_word:last_word_sent",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
            "length_constraints:number_sentences",
        }
    )

    def met(self, text: str) -> bool:
        parts = _JOINT.split(text)
        return len(parts) > 1 and all(count_sentences(part) == 1 for part in parts)

    def seen(self, text: str) -> str:
        parts = _JOINT.split(text)
        sentences = sum(map(count_sentences, parts))
        return f"{counted(sentences, 'sentence')}, {counted(len(parts) - 1, 'joint')}"


def _is_bracketed(word: str) -> bool:
    match = _BRACKETED.fullmatch(word)
    return match is not None and any(map(str.isalnum, match[1]))


@dataclass(frozen=True)
class SquareBrackets(Constraint):
    """Each word, as white space separates them, in its own square brackets.

    The original also accepts empty brackets.
    """

    id = "detectable_format:square_brackets"
    wordings = (
        "Put every word of your answer in square brackets, [like] [this].",
        "Each word must be enclosed in its own pair of [square] [brackets].",
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "combination:two_responses",
            "copy:repeat_phrase",
            "count:counting_composition",
            "detectable_content:number_placeholders",
            "detectable_content:postscript",
            "detectable_format:bigram_wrapping",
            "detectable_format:constrained_response",
            "detectable_format:json_format",
            "detectable_format:multiple_sections",
            "detectable_format:number_bullet_lists",
            "detectable_format:number_highlighted_sections",
            "detectable_format:title",
            "keywords:start_end",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
            "paragraphs:paragraphs",
            "startend:end_checker",
            "startend:quotation",
        }
    )

    def met(self, text: str) -> bool:
        return all(map(_is_bracketed, text.split()))

    def seen(self, text: str) -> str:
        bare = [word for word in text.split() if not _is_bracketed(word)]
        first = f", the first is {quoted(bare[0], 20)}" if bare else ""
        return f"{counted(len(bare), 'word')} without{first}"


@dataclass(frozen=True)
class BigramWrapping(Constraint):
    """Each two words in ``<<double brackets>>``; an odd last word may stand alone.

    The original accepts a single word and brackets inside brackets.
    """

    id = "detectable_format:bigram_wrapping"
    wordings = (
        "Put each pair of words in double angular brackets, <<such as>> <<this one>>.",
        "Wrap every two words of your answer in double angular brackets: <<like this>> <<one "
        "here>>.",
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "combination:two_responses",
            "copy:repeat_phrase",
            "count:counting_composition",
            "detectable_content:number_placeholders",
            "detectable_content:postscript",
            "detectable_format:constrained_response",
            "detectable_format:json_format",
            "detectable_format:multiple_sections",
            "detectable_format:number_bullet_lists",
            "detectable_format:number_highlighted_sections",
            "keywords:start_end",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
            "paragraphs:paragraphs",
            "startend:end_checker",
            "startend:quotation",
        }
    )

    def met(self, text: str) -> bool:
        rest = _BIGRAM.sub(" ", text).split()
        if not _BIGRAM.match(text.lstrip()) or len(rest) > 1:
            return False
        return not rest or (
            text.rstrip().endswith(rest[0]) and _LAST_WORD.fullmatch(rest[0]) is not None
        )

    def seen(self, text: str) -> str:
        rest = _BIGRAM.sub(" ", text).split()
        outside = f", outside them {quoted(' '.join(rest), 20)}" if rest else ""
        return f"{counted(len(_BIGRAM.findall(text)), 'pair')}{outside}"
