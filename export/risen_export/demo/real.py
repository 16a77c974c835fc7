"""``risen demo --model``: what a real model does not follow, a RISEN phase, what it follows then.

The phase is that of ``risen adapt MODEL``, with as many steps as fit the minutes; the bundle is
that of ``risen export``. This module asks, shows and counts the time.
"""

from __future__ import annotations

import shutil
import textwrap
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from transformers import TrainerState

from risen_export.demo.fitting import MOST_STEPS, export_seconds, steps_within
from risen_export.exporting import ExportResult, export
from risen_export.merging.merge import check_tokenizer
from risen_export.merging.source import resolve
from risen_plugin.commands.report.decision import Decision, decision_of
from risen_plugin.commands.report.terminal import decision_lines
from risen_plugin.commands.train.adaptation import adaptation, in_one_phase, risen_section
from risen_plugin.commands.train.recipe import Kind, in_words, kind_of, recipe, with_recipe
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.commands.train.training import Finished, foretelling, prepare, train
from risen_plugin.config import effective_grpo
from risen_plugin.errors import ExportError, printable
from risen_plugin.instructions.plain import PLAIN
from risen_plugin.kit.files import write_json
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.duration import Expected, about
from risen_plugin.phases.measuring import answered_and_scored
from risen_plugin.record.answered import Asked, asked
from risen_plugin.record.reading import read_run
from risen_plugin.rewards.adherence import verdicts
from risen_plugin.training.asking import Asking, precision_of
from risen_plugin.training.clean_room import clean_room

_ASKED = 8  # reported instructions that are answered before the phase
_SHOWN = 3  # of those that are not followed
_REPORTED = 32
_LINES = 6  # of an answer that are shown
_FALLBACK = "fp32"
GENERATOR, REWARDS = "constraints", [{"use": "constraints"}]


@dataclass
class Told:
    """What was shown and said on the way.

    :param failed: instructions that the model did not follow before, with its answers.
    :param followed: how many of those that were asked it did.
    """

    began: float
    failed: list[Asked] = field(default_factory=list)
    followed: int = 0
    expected: Expected | None = None

    @property
    def spent_s(self) -> float:
        return time.perf_counter() - self.began


def run_real_demo(
    model: str,
    out: Path,
    *,
    began: float,
    seed: int,
    minutes: float,
    precision: str = "int8",
    steps: int | None = None,
) -> dict[str, Any]:
    """Run all stages; writes ``run/``, ``bundle/`` and ``summary.json`` into ``out``.

    :param began: when the command did, on the clock of ``time.perf_counter``.
    :param minutes: for everything, from there on.
    :param steps: of the phase, at the most; None for the usual ones.
    :returns: the content of ``summary.json``.
    :raises RisenError: in one line, for a model that cannot be used, or too few minutes.
    """
    check_tokenizer(resolve(model))
    kind = kind_of(model)
    told = Told(began)
    _stage(f"{model}: loading, trying a phase, measuring how fast it goes")
    most = MOST_STEPS if steps is None else steps
    done = _adapted(model, kind, out, told, seed=seed, minutes=minutes, steps=most)
    run = read_run(out / "run")
    _stage("what it follows now, beside what it followed")
    width = min(shutil.get_terminal_size().columns - 1, 100)
    for line in decision_lines(run, width):
        click.echo(line)
    _stage("merging, compiling to ONNX Runtime, checking")
    source = str(out / "run") if done.is_kept else model
    if not done.is_kept:
        click.echo("the phase was dropped, so the bundle holds the model as it was", err=True)
    bundle = _exported(source, out / "bundle", precision)
    for line in bundle_lines(bundle):
        click.echo(line)
    summary = _summary(model, done, told, decision_of(run), bundle, minutes)
    write_json(out / "summary.json", summary)
    return summary


def _adapted(
    model: str, kind: Kind, out: Path, told: Told, *, seed: int, minutes: float, steps: int
) -> Finished:
    """A RISEN phase as ``risen adapt`` makes it, of as many steps as there is time for."""
    section = risen_section(PLAIN, REWARDS, generator=GENERATOR, scheduler=in_one_phase(steps))
    section["guard"] |= {"report_rows": _REPORTED}
    parts = recipe(kind, adds_constraints=True)
    parts.get("risen", {}).pop("mending", None)  # for which there is no time
    data = with_recipe(adaptation(model, section, keep_anyway=False), parts, ())
    run = RunConfig.from_dict({**data, "seed": seed}, "demo")
    folder = out / "run"
    prepared = prepare(run, folder, described={**data, "seed": seed, "output": str(folder)})
    if parts:
        click.echo(in_words(kind, parts), err=True)

    def choose(most: int, expect: Any) -> int:
        spent_s = told.spent_s + export_seconds(kind.parameters)
        chosen = steps_within(minutes * 60 - spent_s, most, expect, spent_s=spent_s)
        expected: Expected = expect(chosen)
        told.expected = expected
        whole = about(spent_s + expected.seconds)
        click.echo(f"{whole} in all, with the export; the phase:", err=True)
        return chosen

    tell = foretelling(prepared, choose)

    def at_start(context: PhaseContext, place: Path) -> PhaseContext:
        then = tell(context, place)
        _stage("what it does not follow now")
        _ask(context, told)
        _stage("reinforcing the answers that follow")
        return then

    assert prepared.callback is not None
    prepared.callback.run_state.at_start = at_start
    return train(prepared, only_kept=True)


def _ask(context: PhaseContext, told: Told) -> None:
    """Answer a few of the instructions that decide nothing, and show some that are not followed."""
    rows = context.instructions.held_out.report[:_ASKED]
    asking = Asking(
        context.tokenizer, effective_grpo(context.config.grpo), precision_of(context.args)
    )
    with clean_room(context.model, context.tokenizer, *context.others):
        made, scores = answered_and_scored(
            context,
            context.model,
            asking,
            "its answers now",
            TrainerState(),
            None,
            rows,
            context.rewards,
        )
    passed = verdicts(context.rewards, scores)
    answered = asked("report", rows, made.completions, passed)
    told.failed = [one for one in answered if not one.answer.passed]
    told.followed = len(answered) - len(told.failed)
    click.echo(f"it follows {told.followed} of these {len(answered)} instructions")
    for one in told.failed[:_SHOWN]:
        for line in lines_of(one):
            click.echo(line)


def lines_of(one: Asked, width: int = 96) -> list[str]:
    """An instruction with its answer, and which constraints it meets."""
    met = one.answer.met or ()
    marks = [
        f"{'✓' if is_met else '✗'} {id_}" for id_, is_met in zip(one.constraints, met, strict=False)
    ]
    return [
        "",
        *_folded(one.prompt, width, "  > "),
        *_folded(one.answer.text or "(empty)", width, "    "),
        f"    {'   '.join(marks)}",
    ]


def _folded(text: str, width: int, indent: str) -> list[str]:
    plain = printable(" ".join(text.split()))
    return textwrap.wrap(
        plain,
        width,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        max_lines=_LINES,
        placeholder=" …",
    )


def _exported(source: str, out: Path, precision: str) -> ExportResult:
    """The bundle in the precision, or in fp32 where that one is too far from the model."""
    try:
        return export(source, out, (precision,))
    except ExportError as error:
        if precision == _FALLBACK:
            raise
        click.echo(f"{precision} is not published: {error}; {_FALLBACK} takes its place", err=True)
        return export(source, out, (_FALLBACK,))


def bundle_lines(bundle: ExportResult) -> list[str]:
    """One line for each graph: its size, how near it is to the model, and its folder."""
    lines = []
    for name, one in bundle.precisions.items():
        measured = one.measured
        near = "not measured" if measured is None else f"{measured.agreement:.1%} of tokens agree"
        lines.append(f"{name}: {one.bytes / 1e6:.0f} MB, {near}, {one.path}")
    return lines


def _summary(  # noqa: PLR0917 what came of each stage
    model: str,
    done: Finished,
    told: Told,
    decision: Decision | None,
    bundle: ExportResult,
    minutes: float,
) -> dict[str, Any]:
    expected = told.expected
    [phase] = [one for one in done.phases if one.kind == "risen"]
    return {
        "model": model,
        "minutes": minutes,
        "seconds": round(told.spent_s, 1),
        "expected": None if expected is None else asdict(expected),
        "not_followed_before": [asdict(one) for one in told.failed],
        "phase": {
            "kept": phase.accepted,
            "steps": phase.steps,
            "verdict": phase.metrics.get("verdict"),
            "seconds_said": phase.metrics.get("seconds_said"),
            "seconds_taken": phase.metrics.get("seconds_taken"),
        },
        "decision": None if decision is None else list(decision.sentences),
        "advice": None if decision is None else decision.advice,
        "bundle": str(bundle.path),
        "precisions": list(bundle.precisions),
    }


def _stage(title: str) -> None:
    click.secho(f"\n{title}", bold=True, err=True)
