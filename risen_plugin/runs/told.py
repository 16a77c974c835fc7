"""Say what came of a run, and what to do next, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from risen_plugin.contracts import PhaseRecord


def phase_lines(phases: Sequence[PhaseRecord]) -> list[str]:
    """One line per RISEN phase with its verdict."""
    risen = [phase for phase in phases if phase.kind == "risen"]
    return [
        f"RISEN phase {number} {'kept' if phase.accepted else 'dropped'}: "
        f"{phase.metrics.get('verdict', phase.reason)}"
        for number, phase in enumerate(risen, start=1)
    ]


def closing(
    output: Path,
    *,
    steps: int,
    losses: tuple[float, float] | None,
    phases: Sequence[PhaseRecord],
    seconds: float,
    is_adapter: bool,
) -> list[str]:
    """What was done and gained, where it lies, and the next command."""
    lines = []
    if steps:
        measured = "" if losses is None else f", evaluation loss {losses[0]:.4f} -> {losses[1]:.4f}"
        lines.append(f"fine-tuned {steps} steps{measured}")
    elif losses is not None:
        lines.append(f"evaluation loss {losses[0]:.4f} -> {losses[1]:.4f}")
    lines += phase_lines(phases)
    what = "adapter and tokenizer" if is_adapter else "model and tokenizer"
    lines.append(f"saved {what} to {output} in {seconds:.0f} s")
    lines.append(f"next: risen export {output} {output}-bundle")
    return lines
