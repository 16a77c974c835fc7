"""The form of a log of answers: its columns, and the scores in it."""

from __future__ import annotations

from typing import TypeAlias

from risen_plugin.contracts import Failed
from risen_plugin.rewards.scores import kind_of

FILE = "completions.parquet"
Score: TypeAlias = float | Failed | None
"""The score of one answer by one reward: a number, an abstention, or an error with its reason."""

COLUMNS = {
    "phase": "int32",
    "step": "int32",
    "group": "int64",
    "prompt": "string",
    "completion": "string",
    "columns": "string",
}
DERIVED = {"family": "string", "constraints": "strings", "met": "bools"}
"""Columns made of the others for readers of Parquet; logs may lack them."""
OF_A_REWARD = {"score": "float64", "outcome": "string", "error": "string"}


def reason_of(score: Score) -> str | None:
    """Why there is no score where that is an error; None otherwise."""
    if kind_of(score) != "error":
        return None
    return score.reason if isinstance(score, Failed) else f"the score is {score}"
