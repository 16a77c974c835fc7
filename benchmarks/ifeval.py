"""Answers of a bundle to IFEval's prompts, and their scores: by our checks and by lm-eval's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.shared import ROOT
from risen_plugin.constraints import judge_all

IFEVAL = ROOT.parent / "shared" / "data" / "ifeval_real" / "gpt4.jsonl"
"""Where the prompts are looked for: rows with prompt, instruction_id_list and kwargs."""
TOKENS = 256  # of an answer
Row = Mapping[str, Any]
Scores = dict[str, float]
Verdict = tuple[bool, bool]  # strictly, loosely


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def answers(bundle: Path, prompts: Sequence[str], *, threads: int, tokens: int) -> list[str]:
    """Greedy answers of a bundle to questions, in their order."""
    from risen_export.engine.engine import Engine
    from risen_export.engine.requests import Request
    from risen_export.engine.settings import EngineSettings

    tokenizer = Engine.open(bundle, settings=EngineSettings(rows=1, context=64)).tokenizer
    asked = [tuple(tokenizer.encode([{"role": "user", "content": prompt}])) for prompt in prompts]
    # A row with room for more takes longer to attend to what it holds.
    context = max(map(len, asked)) + tokens
    settings = EngineSettings(rows=16, threads=threads, context=context, waiting=len(prompts) + 16)
    engine = Engine.open(bundle, settings=settings)
    requests = [Request(ids, max_new_tokens=tokens) for ids in asked]
    return [made[0].text for made in engine.run(requests, progress=True)]


def scores(rows: Sequence[Row], texts: Sequence[str]) -> dict[str, Scores]:
    """IFEval's four numbers by each checker that is installed."""
    found = {"risen": _scores(rows, texts, _ours), "as-ifeval": _scores(rows, texts, _as_ifeval)}
    theirs = _lm_eval()
    if theirs is not None:
        found["lm-eval"] = _scores(rows, texts, theirs)
    return found


def strict_rows(rows: Sequence[Row], texts: Sequence[str]) -> list[bool]:
    """For each row, whether all of its constraints are met by our own checks."""
    return [all(strict for strict, _ in _ours(row, text)) for row, text in _pairs(rows, texts)]


def _pairs(rows: Sequence[Row], texts: Sequence[str]) -> list[tuple[Row, str]]:
    return list(zip(rows, texts, strict=True))


def _scores(
    rows: Sequence[Row], texts: Sequence[str], judge: Callable[[Row, str], list[Verdict]]
) -> Scores:
    verdicts = [judge(row, text) for row, text in _pairs(rows, texts)]
    single = [one for made in verdicts for one in made]
    return {
        "prompt_strict": _share([all(strict for strict, _ in made) for made in verdicts]),
        "prompt_loose": _share([all(loose for _, loose in made) for made in verdicts]),
        "instruction_strict": _share([strict for strict, _ in single]),
        "instruction_loose": _share([loose for _, loose in single]),
    }


def _share(met: Sequence[bool]) -> float:
    return sum(met) / max(1, len(met))


def _judged(row: Row, text: str, rules: Any) -> list[Verdict]:
    made = judge_all(text, row["instruction_id_list"], row["kwargs"], row["prompt"], rules=rules)
    return [(one.strict, one.loose) for one in made]


def _ours(row: Row, text: str) -> list[Verdict]:
    return _judged(row, text, "risen")


def _as_ifeval(row: Row, text: str) -> list[Verdict]:
    return _judged(row, text, "ifeval")


def _lm_eval() -> Callable[[Row, str], list[Verdict]] | None:
    """lm-eval's own checks, where it is installed; see tests/oracle."""
    sys.path.insert(0, str(ROOT / "tests" / "oracle"))
    import ifeval_reference

    if ifeval_reference.missing():
        return None

    def judge(row: Row, text: str) -> list[Verdict]:
        return [
            ifeval_reference.verdict(id_, kwargs, text, row["prompt"])
            for id_, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True)
        ]

    return judge
