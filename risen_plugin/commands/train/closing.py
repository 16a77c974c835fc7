"""The lines that a command prints last: the result of a run, measurements, advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_plugin.commands.advise.advice import Advice, Measurements
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.contracts import PhaseRecord

if TYPE_CHECKING:
    from risen_plugin.commands.train.training import Checked

_LEAST_SHOWN_S = 0.5


def phase_lines(phases: Sequence[PhaseRecord]) -> list[str]:
    """One line per RISEN phase with its verdict."""
    risen = [phase for phase in phases if phase.kind == "risen"]
    return [
        f"RISEN phase {number} {'kept' if phase.accepted else 'dropped'}: "
        f"{phase.metrics.get('verdict', phase.reason)}"
        for number, phase in enumerate(risen, start=1)
    ]


def closing_lines(
    output: Path,
    *,
    steps: int,
    losses: tuple[float, float] | None,
    phases: Sequence[PhaseRecord],
    seconds: float,
    is_adapter: bool,
    reinforces: bool,
) -> list[str]:
    """Steps, losses and verdicts of the run, the folder of its result, and the next command.

    A run of RISEN alone that kept no phase says that its result is what it began with.
    """
    lines = []
    if steps:
        measured = "" if losses is None else f", evaluation loss {losses[0]:.4f} -> {losses[1]:.4f}"
        lines.append(f"fine-tuned {steps} steps{measured}")
    elif losses is not None:
        lines.append(f"evaluation loss {losses[0]:.4f} -> {losses[1]:.4f}")
    verdicts = phase_lines(phases)
    lines += verdicts or (["no RISEN phase began"] if reinforces else [])
    saved = "adapter and tokenizer" if is_adapter else "model and tokenizer"
    is_as_before = not steps and not any(phase.accepted for phase in phases)
    what = ", which are what the run began with," if is_as_before else ""
    lines.append(f"saved {saved}{what} to {output} in {seconds:.0f} s")
    if is_as_before:
        dropped = sorted(output.glob("risen/phase-*/dropped"))
        where = (
            f"the dropped adapter is in {dropped[-1]}"
            if dropped
            else "no dropped adapter was saved; risen.keep_dropped: true saves it"
        )
        return [*lines, f"nothing was learned; {where}" if verdicts else "nothing was learned"]
    lines.append(f"next: risen export {output} {output}-bundle")
    return lines


def closing_data(
    output: Path,
    *,
    saved: bool,
    steps: int,
    losses: tuple[float, float] | None,
    phases: Sequence[PhaseRecord],
    seconds: float,
    is_adapter: bool,
) -> dict[str, Any]:
    """What the closing lines say, as JSON values.

    :param saved: whether a model or an adapter was saved.
    """
    return {
        "output": str(output),
        "saved": ("adapter" if is_adapter else "model") if saved else None,
        "steps": steps,
        "evaluation_loss": None if losses is None else {"before": losses[0], "after": losses[1]},
        "phases": [asdict(phase) for phase in phases if phase.kind != "fine_tune"],
        "all_dropped": all_dropped(phases),
        "seconds": seconds,
    }


def all_dropped(phases: Sequence[PhaseRecord]) -> bool:
    """Whether there were RISEN phases and none was kept."""
    risen = [phase for phase in phases if phase.kind == "risen"]
    return bool(risen) and not any(phase.accepted for phase in risen)


def checked_lines(run: RunConfig, output: Path, checked: Checked) -> list[str]:
    """What a run that could begin is made of, and where it would write."""
    lines = [f"model   {run.model}: {checked.trained:,} of {checked.parameters:,} weights trained"]
    if run.data is not None:
        train, evaluation = checked.rows
        lines.append(f"data    {run.data.name}: {train} rows, and {evaluation} to evaluate on")
    if checked.held_out is not None:
        guard, report = checked.held_out
        lines.append(f"risen   {guard} instructions for the guard, and {report} to report on")
    return [*lines, f"output  {output}", "it can be trained; nothing was trained or written"]


def measured_lines(m: Measurements) -> list[str]:
    """The measurements, one line per subject."""
    lines = [
        f"model        {m.parameters:,} parameters, ready after {m.start_s:.1f} s",
        f"memory       {m.memory.available / 1e9:.2f} GB available, "
        f"{max(m.memory.peak, m.memory.needed) / 1e9:.2f} GB needed",
    ]
    if m.data is not None and m.data.steps:
        lines.append(
            f"data         {m.data.rows} rows; held-out loss {m.data.loss:.4f} -> "
            f"{m.data.loss_after:.4f} in {m.data.steps} steps of {m.data.batch} rows, "
            f"{m.data.step_s:.2f} s each"
        )
    elif m.data is not None:
        lines.append(f"data         {m.data.rows} rows")
    for title, rewards in (("instructions", m.rewards), ("  after that", m.tuned)):
        if rewards is not None:
            lines.append(
                f"{title:12} adherence {rewards.adherence:.3f} on {rewards.held_out}; in "
                f"{rewards.groups} groups of {rewards.k}: pass@1 {rewards.pass_at_1:.3f}, "
                f"pass@{rewards.k} {rewards.pass_at_k:.3f}, without variance "
                f"{rewards.zero_variance:.3f}; {rewards.step_s:.2f} s a step, "
                f"{rewards.tokens_s:.0f} tokens/s"
            )
    if m.checkpoint_s >= _LEAST_SHOWN_S and m.save_every:
        lines.append(f"writing      {m.checkpoint_s:.1f} s a checkpoint")
    return [*lines, f"measured in  {m.spent_s:.0f} s"]


def advice_lines(advice: Advice) -> list[str]:
    """The advice with its reasons, and the time and memory that it takes."""
    lines = [f"advice: {advice.in_words}", *(f"  - {reason}" for reason in advice.reasons)]
    if advice.course != "nothing":
        adapter = ", training an adapter" if advice.only_adapter else ""
        lines.append(
            f"estimated: {advice.seconds:.0f} s, {advice.memory / 1e9:.2f} GB of memory{adapter}"
        )
    return lines
