"""The form of a log of answers: its columns, and what a reward can make of an answer."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from risen_plugin.contracts import Failed

FILE = "completions.parquet"
Outcome: TypeAlias = float | Failed | None
"""What a reward made of one answer: a score, an abstention, or an error with its reason."""
OutcomeName: TypeAlias = Literal["score", "abstain", "error"]

COLUMNS = {
    "phase": "int32",
    "step": "int32",
    "group": "int64",
    "prompt": "string",
    "completion": "string",
    "columns": "string",
}
DERIVED = {"family": "string", "constraints": "strings", "met": "bools"}
"""What is told of the columns and the answer for readers of Parquet; logs may lack it."""
OF_A_REWARD = {"score": "float64", "outcome": "string", "error": "string"}


def outcome_name(outcome: Outcome) -> OutcomeName:
    """``score``, ``abstain`` or ``error``."""
    if outcome is None:
        return "abstain"
    return "score" if math.isfinite(outcome) else "error"


def reason_of(outcome: Outcome) -> str | None:
    """Why there is no score where that is an error; None otherwise."""
    if outcome_name(outcome) != "error":
        return None
    return outcome.reason if isinstance(outcome, Failed) else f"the score is {outcome}"
