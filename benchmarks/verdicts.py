"""Seconds to judge real answers, beside lm-eval's checks, and the slowest check of evil answers.

``python -m benchmarks.verdicts ANSWERS.jsonl``: rows with ``prompt``, ``completion``,
``instruction_id_list`` and ``kwargs``. lm-eval is timed where ``tox -e oracle``'s packages are.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from risen_plugin.constraints import IFEVAL_IDS, KNOWN, judge_all, parse
from risen_plugin.constraints.core import RULES, Rules
from risen_plugin.constraints.original.checks import parse as parse_original
from risen_plugin.constraints.original.needs import check_installed
from risen_plugin.errors import ConfigError

SIZE = 1_000_000  # characters
LIMIT_S = 1.0
PIECES = (
    ". ", "1. ", "Ab. ", "U.S. ", "?", "...", "*", "**", "* ", "*a", "\n", "\n\n", "***\n", "[",
    "<", "<<", "<<a b>> ", "{", '"', "'", "_", "_ ", "-", "- a\n", "#", "a", "a ", "A", "don't ",
    "a@", "P.S. ", "Section 1 ", " ", "\u00a0", "\u200b", "e\u0301", "\uac00", ",",
)  # fmt: skip


def main() -> None:
    logging.disable(logging.CRITICAL)
    try:
        check_installed()
    except ConfigError as error:
        sys.exit(str(error))
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text("utf-8").splitlines()]
    ways: dict[str, Callable[[dict[str, Any]], object]] = {
        "ours": _judged("risen"),
        "as IFEval": _judged("ifeval"),
    }
    if (reference := _reference()) is not None:
        ways["lm-eval"] = reference
    for name, judge in ways.items():
        judge(rows[0])
        seconds = min(_timed(judge, rows) for _ in range(3))
        print(f"{name}: {len(rows)} answers in {seconds:.2f} s of CPU, strict and loose")
    for rules in RULES:
        slowest = max(_of_evil(rules))
        print(f"{rules}: the slowest check of {SIZE:,} characters: {slowest}")


def _judged(rules: Rules) -> Callable[[dict[str, Any]], object]:
    return lambda row: judge_all(
        row["completion"], row["instruction_id_list"], row["kwargs"], row["prompt"], rules=rules
    )


def _reference() -> Callable[[dict[str, Any]], object] | None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracle"))
    import ifeval_reference

    if ifeval_reference.missing():
        return None

    def judge(row: dict[str, Any]) -> object:
        return [
            ifeval_reference.verdict(id_, kwargs, row["completion"], row["prompt"])
            for id_, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True)
        ]

    return judge


def _timed(judge: Callable[[dict[str, Any]], object], rows: list[dict[str, Any]]) -> float:
    began = time.process_time()
    for row in rows:
        judge(row)
    return time.process_time() - began


def _of_evil(rules: Rules) -> list[tuple[float, str, str]]:
    """Seconds of each check of each text, with the id and the piece that the text repeats."""
    made: list[tuple[float, str, str]] = []
    for id_ in sorted(KNOWN if rules == "risen" else IFEVAL_IDS):
        kwargs = KNOWN[id_].sample(random.Random(0), "Why is the sky blue?")
        constraint = (parse if rules == "risen" else parse_original)(id_, kwargs)
        constraint.check("The sky is blue.")
        for piece in PIECES:
            text = (piece * (SIZE // len(piece) + 1))[: SIZE - 1] + "x"
            began = time.process_time()
            constraint.check(text)
            made.append((round(time.process_time() - began, 2), id_, repr(piece)))
    slow = sorted(one for one in made if one[0] > LIMIT_S)
    for one in slow:
        print("over the limit:", *one)
    return made


if __name__ == "__main__":
    main()
