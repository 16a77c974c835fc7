"""Constraints on punctuation: the ``punctuation`` family of IFEval and IFTrain."""

from __future__ import annotations

import re
from dataclasses import dataclass

from risen_plugin.constraints.core import Constraint, counted

# Commas of all scripts: otherwise a full-width comma would be a way around.
_COMMA = re.compile("[,\u055d\u060c\u07f8\u1802\u3001\ufe10\ufe11\ufe50\ufe51\uff0c\uff64]")
_DOT = re.compile("[.\u2024\u2025\u2026\u3002\ufe52\uff0e\uff61]")
_EXCLAMATION = re.compile("[!\u00a1\u01c3\u203c\u2048\u2049\ufe15\ufe57\uff01]")


@dataclass(frozen=True)
class NoComma(Constraint):
    """No comma of any script."""

    id = "punctuation:no_comma"
    wordings = (
        "Do not use any commas.",
        "Your answer must not contain a comma.",
        "Write the whole answer without commas.",
    )
    conflicts = frozenset({"detectable_format:json_format"})

    def met(self, text: str) -> bool:
        return not _COMMA.search(text)

    def seen(self, text: str) -> str:
        return counted(len(_COMMA.findall(text)), "comma")


@dataclass(frozen=True)
class PunctuationDot(Constraint):
    """No dot of any script, and no ellipsis."""

    id = "punctuation:punctuation_dot"
    wordings = (
        "Do not use any periods (full stops) in your answer.",
        "Your answer must not contain any dots, not even at the end of a sentence.",
        'Write your whole answer without the character ".".',
    )
    conflicts = frozenset(
        {
            "combination:repeat_prompt",
            "detectable_content:postscript",
            "detectable_format:constrained_response",
            "startend:end_checker",
        }
    )

    def met(self, text: str) -> bool:
        return not _DOT.search(text)

    def seen(self, text: str) -> str:
        return counted(len(_DOT.findall(text)), "dot")


@dataclass(frozen=True)
class PunctuationExclamation(Constraint):
    """No exclamation mark of any script."""

    id = "punctuation:punctuation_exclamation"
    wordings = (
        "Do not use exclamation marks.",
        "Your answer must not contain an exclamation mark.",
        "Write the whole answer without exclamation marks.",
    )

    def met(self, text: str) -> bool:
        return not _EXCLAMATION.search(text)

    def seen(self, text: str) -> str:
        return counted(len(_EXCLAMATION.findall(text)), "exclamation mark")
