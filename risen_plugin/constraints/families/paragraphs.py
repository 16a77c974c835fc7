"""Constraints that ask for two paragraphs: IFTrain's ``paragraphs`` family."""

from __future__ import annotations

from dataclasses import dataclass

from risen_plugin.constraints.core import Constraint, counted
from risen_plugin.constraints.text import divided, split_at_blank_lines


@dataclass(frozen=True)
class Paragraphs(Constraint):
    """Two paragraphs with ``***`` between them.

    ``***`` divides only where white space or nothing is around it. The original also divides at
    the stars of ``***bold italics***``.
    """

    id = "paragraphs:paragraphs"
    wordings = (
        "Write exactly two paragraphs and put *** between them.",
        "Your answer must have exactly 2 paragraphs, separated with the Markdown divider ***.",
    )
    conflicts = frozenset(
        {
            "combination:two_responses",
            "detectable_format:json_format",
            "detectable_format:sentence_hyphens",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
            "paragraphs:paragraphs2",
        }
    )

    def met(self, text: str) -> bool:
        parts = divided(text)
        return len(parts) == 2 and all(parts)

    def seen(self, text: str) -> str:
        return counted(sum(map(bool, divided(text))), "paragraph")


@dataclass(frozen=True)
class Paragraphs2(Constraint):
    """Two paragraphs with blank lines between them.

    However many blank lines there are; in the original a third line break in a row makes a
    difference.
    """

    id = "paragraphs:paragraphs2"
    wordings = (
        "Write exactly two paragraphs, with an empty line between them and no other empty line.",
        "Your answer must have exactly 2 paragraphs, separated by two line breaks.",
    )
    conflicts = frozenset(
        {
            "combination:two_responses",
            "detectable_format:json_format",
            "detectable_format:sentence_hyphens",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
        }
    )

    def met(self, text: str) -> bool:
        return len(split_at_blank_lines(text)) == 2

    def seen(self, text: str) -> str:
        return counted(len(split_at_blank_lines(text)), "paragraph")
