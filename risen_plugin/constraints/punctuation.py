"""Constraints on punctuation: IFEval's ``punctuation`` family."""

from __future__ import annotations

import re
from dataclasses import dataclass

from risen_plugin.constraints.core import Constraint

# Commas of all scripts: otherwise a full-width comma would be a way around.
_COMMA = re.compile("[,\u055d\u060c\u07f8\u1802\u3001\ufe10\ufe11\ufe50\ufe51\uff0c\uff64]")


@dataclass(frozen=True)
class NoComma(Constraint):
    """No comma of any script."""

    id = "punctuation:no_comma"
    wordings = (
        "Do not use any commas.",
        "Your answer must not contain a comma.",
        "Write the whole answer without commas.",
    )
    conflicts = frozenset({"detectable_format:json_format", "combination:repeat_prompt"})

    def met(self, text: str) -> bool:
        return not _COMMA.search(text)
