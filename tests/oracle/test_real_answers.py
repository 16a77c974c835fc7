"""Real answers with IFEval's official verdicts: each difference from ours is of a listed class.

The answers are GPT-4's to the instructions of IFEval, read from a folder beside the project.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import ifeval_differences
import ifeval_reference
import pytest

from risen_plugin.constraints import judge_all, parse

REAL = Path(__file__).parents[3] / "shared/data/ifeval_real/gpt4.jsonl"
if not REAL.is_file():
    pytest.skip(f"there are no real answers in {REAL}", allow_module_level=True)
if ifeval_reference.missing():
    pytest.skip("the reference is not installed; `tox -e oracle` has it", allow_module_level=True)


def test_every_difference_from_an_official_verdict_is_of_a_listed_class() -> None:
    explained: Counter[tuple[str, str]] = Counter()
    wrong = []
    count = 0
    for line in REAL.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for one in _instructions(row):
            count += 1
            constraint = parse(one["id"], one["kwargs"], row["prompt"])
            (judged,) = judge_all(row["completion"], [one["id"]], [one["kwargs"]], row["prompt"])
            for measure, named in (
                ("strict", ifeval_differences.named),
                ("loose", ifeval_differences.named_loosely),
            ):
                if getattr(judged, measure) == one[measure]:
                    continue
                classes = named(constraint, row["completion"])
                explained.update((measure, name) for name in classes)
                if not classes:
                    wrong.append((row["key"], measure, judged, one))
    for (measure, name), answers in sorted(explained.items()):
        print(f"{measure}: {answers} {name}")
    assert count == 832
    assert not wrong, wrong[:3]
    assert sum(explained.values()) < 32  # 12 strict and 14 loose ones


def _instructions(row: dict[str, Any]) -> list[dict[str, Any]]:
    names = ("instruction_id_list", "kwargs", "official_strict", "official_loose")
    return [
        dict(zip(("id", "kwargs", "strict", "loose"), values, strict=True))
        for values in zip(*(row[name] for name in names), strict=True)
    ]
