"""The scheduler ``plateau``: fine-tune until that stops paying, then RISEN while that pays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.kit.checks import check_between, check_whole
from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import (
    PROBE_LOSS,
    Series,
    evaluated,
    gain_of,
    held_by_model,
    last_risen_step,
    loss_name,
    risen_phases,
    train_loss_blocks,
)

_BLOCK = 5  # logged training losses that count as one evaluation where there are none
_NEVER_EVALUATED = 0.25  # share of the run after which evaluations are no longer waited for
_FRESH = 0.05  # share of the run before its end in which a RISEN phase needs no other after it


@dataclass(frozen=True)
class Plateau:
    """Fine-tune until the held-out loss has stopped paying, then RISEN while that pays.

    Fine-tuning has stopped paying when the best of the latest ``evaluations`` is less than
    ``least`` better than the best before, or when the last two each were worse than the one before.
    Then RISEN phases follow, with one step of the outer run between them, as long as each is kept
    with a gain of ``least_gain``, at most ``in_a_row``. Then fine-tuning has to stop paying anew.
    At the end of the run comes a RISEN phase, unless there has just been one.

    After a RISEN phase comes a burst from the buffers when ``unsolved`` instructions wait that
    nobody has solved, when the guard asked for one (``guard.burst_at``), or when the probe loss has
    risen by ``forgetting`` over its lowest; with empty buffers the run's own fine-tuning has to do.

    A run without evaluations is judged by its training loss, which is a worse guide: give the
    Trainer an ``eval_strategy``.

    :param steps: GRPO optimizer steps of each RISEN phase.
    :param evaluations: evaluations within which fine-tuning has to show that it pays.
    :param least: the improvement over them that pays, as a share of the value.
    :param metric: the metric of the evaluations that decides; the held-out loss unless given.
    :param higher_is_better: whether a higher value of ``metric`` is a better one.
    :param in_a_row: the most RISEN phases without a new plateau.
    :param least_gain: the gain in strict adherence from which RISEN pays, as a share of the
        instructions.
    :param unsolved: unsolved instructions that ask for a burst.
    :param forgetting: rise of the probe loss that asks for a burst, in nats per token.
    :param burst: optimizer steps of a burst; 0 for no bursts.
    :param parameters: fields of TRL's ``GRPOConfig`` for these phases alone.
    :raises ConfigError: if a number is out of range.
    """

    steps: int = 40
    evaluations: int = 3
    least: float = 0.015
    metric: str | None = None
    higher_is_better: bool = False
    in_a_row: int = 3
    least_gain: float = 0.01
    unsolved: int = 32
    forgetting: float = 0.03
    burst: int = 8
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "in_a_row", "unsolved"):
            check_whole(name, getattr(self, name), 1)
        check_whole("evaluations", self.evaluations, 1)
        check_whole("burst", self.burst, 0)
        check_between("least", self.least, 0.0, 1.0)
        check_between("least_gain", self.least_gain, 0.0, 1.0)
        check_between("forgetting", self.forgetting, 0.0, math.inf)
        if self.higher_is_better and self.metric is None:
            raise ConfigError(
                "higher_is_better belongs to a metric, and none is given: the held-out loss is "
                "better when it is lower"
            )

    def __call__(self, progress: Progress) -> Decision:
        done = risen_phases(progress)
        if done:
            after = self._after_risen(progress, done)
            if after is not None:
                return after
        if progress.step >= progress.max_steps:
            return self._at_end(progress, done)
        stopped, reason = self._judged(progress)
        return self._risen(reason) if stopped else _fine_tune(reason)

    def _after_risen(self, progress: Progress, done: list[PhaseRecord]) -> Decision | None:
        """The decision that the latest RISEN phase calls for; None where it calls for nothing.

        A burst takes the place of one step's decision, so that RISEN may go on a step later.
        """
        last = done[-1]
        since = progress.step - last.at_step
        burst_since = any(p.kind == "burst" and p.at_step >= last.at_step for p in progress.phases)
        rise = _forgotten(done)
        forgotten = rise >= self.forgetting > 0.0 or bool(last.metrics.get("wants_burst"))
        answers = progress.buffered + progress.demonstrations
        if self.burst and answers and since and not burst_since:
            full = progress.unsolved >= self.unsolved
            if forgotten or full:
                why = f"{progress.unsolved} instructions are unsolved"
                why = _why(last, rise) if forgotten else why
                return self._burst(f"{why}, {answers} answers to learn from")
        if since > 1 + burst_since or not last.accepted:
            return None
        if forgotten and not burst_since:
            if progress.step >= progress.max_steps:
                return None
            return _fine_tune(f"{_why(last, rise)}, back to fine-tuning")
        gain, row = gain_of(last).adherence, _in_a_row(done)
        if gain < self.least_gain or row >= self.in_a_row:
            return None
        return self._risen(f"the last RISEN phase gained {gain:+.3f}, {row} of {self.in_a_row}")

    def _at_end(self, progress: Progress, done: list[PhaseRecord]) -> Decision:
        since = progress.step - last_risen_step(progress)
        if not done:
            return self._risen("the run ends, and there was no RISEN phase yet")
        if since > max(1, _FRESH * progress.max_steps):
            return self._risen(f"the run ends, {since} fine-tune steps after the last RISEN phase")
        return _fine_tune(f"the run ends, {since} fine-tune steps after the last RISEN phase")

    def _judged(self, progress: Progress) -> tuple[bool, str]:
        """Whether fine-tuning has stopped paying since the latest RISEN phase, and the reason."""
        begun = last_risen_step(progress)
        everything = evaluated(progress, self.metric)
        if everything:
            name = self.metric or loss_name(progress.eval_metrics)
            series = [(step, value) for step, value in everything if step > begun]
            return self._stopped(series, name, "evaluations")
        self._refuse_unknown_metric(progress)
        if progress.step < _NEVER_EVALUATED * progress.max_steps:
            return False, "no evaluation yet"
        losses = [(s, loss) for s, loss in train_loss_blocks(progress, _BLOCK) if s > begun]
        stopped, reason = self._stopped(losses, "train loss", f"means of {_BLOCK} logged losses")
        return stopped, f"no evaluations (eval_strategy), the training loss has to do: {reason}"

    def _refuse_unknown_metric(self, progress: Progress) -> None:
        known = sorted({name for _, metrics in progress.eval_metrics for name in metrics})
        if self.metric is not None and known and self.metric not in known:
            hint = near_miss(self.metric, known) or "."
            raise ConfigError(
                f"no evaluation has the metric '{self.metric}'{hint} They have: {', '.join(known)}"
            )

    def _stopped(self, series: Series, name: str, what: str) -> tuple[bool, str]:
        sign = 1.0 if self.higher_is_better else -1.0
        values = [value for _, value in series]
        worse = [sign * (b - a) < 0 for a, b in zip(values[-3:], values[-2:], strict=False)]
        if len(values) >= 3 and all(worse[-2:]) and what == "evaluations":
            return True, f"{name} got worse twice, {' -> '.join(f'{v:.4g}' for v in values[-3:])}"
        if len(values) <= self.evaluations:
            return False, f"{len(values)} of {self.evaluations + 1} {what} since RISEN or the start"
        best = max if self.higher_is_better else min
        before, since = best(values[: -self.evaluations]), best(values[-self.evaluations :])
        better = sign * (since - before) / abs(before) if before else sign * (since - before)
        reason = (
            f"{name} {before:.4g} -> {since:.4g} over {self.evaluations} {what}, "
            f"{'better' if better >= 0 else 'worse'} by {abs(better):.2%}"
            + (f", below {self.least:.2%}" if 0 <= better < self.least else "")
        )
        return better < self.least, reason

    def _risen(self, reason: str) -> Decision:
        return Decision("risen", self.steps, self.parameters, f"plateau: {reason}")

    def _burst(self, reason: str) -> Decision:
        return Decision("burst", self.burst, {}, f"plateau: {reason}")


def _fine_tune(reason: str) -> Decision:
    return Decision("fine_tune", reason=f"plateau: {reason}")


def _why(last: PhaseRecord, rise: float) -> str:
    """Why fine-tuning is called for by the latest phase."""
    if last.metrics.get("wants_burst"):
        return "the guard asks for fine-tuning"
    return f"the probe loss has risen by {rise:.4f}"


def _in_a_row(done: list[PhaseRecord]) -> int:
    """RISEN phases at the end of ``done`` with no more than a step and a burst between them."""
    row = 1
    for earlier, later in zip(reversed(done[:-1]), reversed(done[1:]), strict=True):
        if later.at_step - earlier.at_step > 2:
            break
        row += 1
    return row


def _forgotten(done: list[PhaseRecord]) -> float:
    """By how much the probe loss that the latest phase left is above the lowest before it."""
    last = held_by_model(done[-1], PROBE_LOSS)
    seen = [phase.metrics.get(f"{PROBE_LOSS}_before") for phase in done]
    seen += [held_by_model(phase, PROBE_LOSS) for phase in done[:-1]]
    known = [value for value in map(as_number, seen) if value is not None]
    return 0.0 if last is None or not known else last - min(known)
