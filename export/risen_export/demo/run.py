"""Run the demo from beginning to end and write ``summary.json``."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import transformers

from risen_export.demo.settings import Settings
from risen_export.demo.stages import Desk, score_instructions
from risen_export.exporting import export
from risen_export.gate.settings import GateSettings
from risen_export.runtime.bundle import Bundle
from risen_plugin.contracts import PhaseRecord
from risen_plugin.embedded import base_model, orders
from risen_plugin.kit.files import write_json
from risen_plugin.progress import TIMED
from risen_plugin.run.deciding import timeline

QUESTIONS = 4
PRECISIONS = ("fp32", "int8")


def run_demo(
    out: Path, settings: Settings, *, seed: int, baselines: bool, model: str | None
) -> dict[str, Any]:
    """Run all stages; writes ``run/``, ``bundle/`` and ``summary.json`` into ``out``.

    :returns: the content of ``summary.json``.
    """
    _quieten()
    wall = _Wall()
    with wall.stage("load", "loading the base model and writing the messages"):
        desk = Desk(settings, seed, model)
    with wall.stage("train", "fine-tuning, then RISEN"):
        callback, before = desk.fine_tune_with_risen(out / "run")
    risen_s = sum(_seconds(phase) for phase in callback.phases)
    wall.split("train", risen=risen_s, evaluate=before.seconds, rest="fine_tune")
    with wall.stage("evaluate", "measuring on rows that were never trained on"):
        after = desk.figures(desk.model, "after RISEN")
    summary: dict[str, Any] = {
        "seed": seed,
        "phases": [
            {
                "kind": p.kind,
                "steps": p.steps,
                "reason": p.reason,
                "accepted": p.accepted,
                "verdict": p.metrics.get("verdict"),
            }
            for p in _phases(callback.phases, settings.fine_tune_steps)
        ],
        "before_risen": before.figures,
        "after_risen": after,
        "risen_s": {
            name: round(sum(p.metrics.get(name, 0.0) for p in callback.phases), 2) for name in TIMED
        },
    }
    with wall.stage("export", "merging, compiling to ONNX Runtime, checking"):
        summary["bundle"] = _export(desk, out)
    answered = _ask(desk, out / "bundle")
    if baselines:
        for name, filtered in (
            ("fine_tune_only_same_time", False),
            ("fine_tune_filtered_same_time", True),
        ):
            with wall.stage(name, f"baseline: {name.replace('_', ' ')}"):
                continued, steps = desk.continue_fine_tuning(
                    before, out / "run" / name, risen_s, filtered=filtered
                )
            with wall.stage("evaluate", "measuring the baseline"):
                summary[name] = {**desk.figures(continued, name), "steps": steps}
    summary |= {
        "wall_s": wall.rounded(),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "data": {
            "rows": settings.rows,
            "obedience": _rounded(orders.obedience(desk.data.train)),
            "base_obedience": _base_obedience() if model is None else None,
            "reported_instructions": len(desk.data.instructions),
            "reported_domain_rows": len(desk.data.domain),
            "guard_instructions": settings.guarded,
            "guard_probe_rows": len(desk.data.probe),
        },
        "answers": answered,
    }
    write_json(out / "summary.json", summary)
    return summary


def _export(desk: Desk, out: Path) -> dict[str, Any]:
    chosen = [row["prompt"] for row in desk.data.instructions[:8]]
    settings = GateSettings(prompts=chosen, count=0)  # adherence is measured below, on more rows
    result = export(out / "run", out / "bundle", PRECISIONS, gate=settings, progress=True)
    figures: dict[str, Any] = {"path": str(out / "bundle")}
    for name, one in result.precisions.items():
        bundle = Bundle.open(out / "bundle", precision=name)
        answers = bundle.generate(
            [row["prompt"] for row in desk.data.instructions],
            max_new_tokens=desk.settings.answer_tokens,
            batch_size=desk.settings.measured_at_once,
        )
        as_chat = [[{"role": "assistant", "content": text}] for text in answers]
        measured = one.measured
        figures[name] = {
            "max_logit_diff": measured and measured.logit_diff,
            "greedy_agreement": measured and measured.greedy_equal / measured.answered,
            **score_instructions(desk.data.instructions, as_chat),
        }
    return figures


def _ask(desk: Desk, folder: Path) -> list[dict[str, str]]:
    rows = desk.data.instructions[-QUESTIONS:]
    bundle = Bundle.open(folder, precision="int8")
    prompts = [row["prompt"] for row in rows]
    answers = bundle.generate(prompts, max_new_tokens=desk.settings.answer_tokens)
    return [
        {"question": prompt[0]["content"], "answer": answer}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _phases(phases: tuple[PhaseRecord, ...], steps: int) -> list[PhaseRecord]:
    last = timeline(phases, steps)[-1]
    return [*phases, last] if last.steps else list(phases)


def _seconds(phase: PhaseRecord) -> float:
    return float(sum(v for k, v in phase.metrics.items() if k.endswith("_s")))


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _base_obedience() -> dict[str, float]:
    """The shares of obeyed wishes in the text that the embedded base was trained on."""
    provenance = json.loads((base_model() / "provenance.json").read_text(encoding="utf-8"))
    return dict(provenance["obedience"])


def _quieten() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


class _Wall:
    """Wall-clock seconds per stage, and a line when each begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.begun = time.monotonic()

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        click.secho(f"\n{title}", bold=True, err=True)
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def split(self, name: str, *, rest: str, **parts: float) -> None:
        """Book parts of a stage's time under other names, and the remainder under ``rest``."""
        whole = self.seconds.pop(name)
        for part, seconds in parts.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        self.seconds[rest] = whole - sum(parts.values())

    def rounded(self) -> dict[str, float]:
        total = time.monotonic() - self.begun
        return {**{k: round(v, 1) for k, v in self.seconds.items()}, "total": round(total, 1)}
