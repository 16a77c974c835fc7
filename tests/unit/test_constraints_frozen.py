"""Agreement with IFEval's own checks, on verdicts that were recorded.

``tests/oracle`` compares with the reference itself, on many more answers.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from risen_plugin.constraints import IFEVAL_IDS, judge_all

DATA = Path(__file__).parents[1] / "data" / "ifeval_verdicts.json"
ROWS = json.loads(DATA.read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize("id_", sorted(IFEVAL_IDS))
def test_recorded_verdicts_of_the_reference_are_ours(id_: str) -> None:
    rows = [row for row in ROWS if row["id"] == id_]
    assert {row["strict"] for row in rows} == {True, False}
    for row in rows:
        (judged,) = judge_all(row["text"], [id_], [row["kwargs"]], row["prompt"])
        assert (judged.strict, judged.loose) == (row["strict"], row["loose"]), row
