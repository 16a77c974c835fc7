"""The scheduler ``benefit``: compare the gain per second of fine-tuning and of RISEN."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.kit.checks import check_between, check_whole
from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import (
    ADHERENCE,
    PROBE_LOSS,
    Gain,
    Series,
    evaluated,
    fine_tune_seconds,
    gain_of,
    held_by_model,
    last_risen_step,
    risen_phases,
    train_loss_blocks,
)

_BLOCK = 5  # logged training losses that count as one evaluation where there are none


@dataclass(frozen=True)
class Benefit:
    """Spend the time on what has gained more per second: fine-tuning or RISEN.

    A gain is ``adherence + exchange * loss``: the gain in strict adherence as a share of the
    guard's instructions, and the fall of the held-out loss in nats per token. RISEN's is measured
    in its latest ``memory`` phases (a dropped one has cost its seconds and gained nothing);
    fine-tuning's loss by its latest ``memory`` pairs of evaluations without a RISEN phase between
    them, or by the probe or the training loss where there are none, and its adherence by the
    guard's measurement after it.

    The run begins with ``start`` of fine-tuning and then ``explore`` RISEN phases, so that there
    is something to compare. A phase also comes when RISEN has not been tried for ``again`` of the
    run, since its gain may have changed, and at the end, if its gain was above 0.

    :param steps: GRPO optimizer steps of each RISEN phase.
    :param exchange: shares of adherence that a fall of the held-out loss by one nat is worth.
    :param start: the share of the run before the first RISEN phase.
    :param explore: RISEN phases before the gains are compared.
    :param every: the least share of the run between RISEN phases.
    :param again: the share of the run after which RISEN is tried again; 0 for never.
    :param memory: phases and pairs of evaluations that a gain is taken over.
    :param metric: the loss of the evaluations; the held-out loss unless given.
    :param parameters: fields of TRL's ``GRPOConfig`` for these phases alone.
    :raises ConfigError: if a number is out of range.
    """

    steps: int = 40
    exchange: float = 1.0
    start: float = 0.25
    explore: int = 1
    every: float = 0.05
    again: float = 0.25
    memory: int = 2
    metric: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "explore", "memory"):
            check_whole(name, getattr(self, name), 1)
        check_between("exchange", self.exchange, 0.0, math.inf)
        for name in ("start", "every", "again"):
            check_between(name, getattr(self, name), 0.0, 1.0)

    def __call__(self, progress: Progress) -> Decision:
        done = risen_phases(progress)
        waiting = self._waiting(progress, begun=bool(done))
        if waiting:
            return _fine_tune(waiting)
        if len(done) < self.explore:
            return self._risen(f"exploring, phase {len(done) + 1} of {self.explore}")
        pays, reason = self._compared(progress, done)
        return self._risen(reason) if pays else _fine_tune(reason)

    def _waiting(self, progress: Progress, *, begun: bool) -> str:
        """Why it is too early for a RISEN phase; empty if it is not."""
        since = progress.step - last_risen_step(progress)
        if begun and since < 1:
            return "a RISEN phase has just ended"
        wait = self._steps(self.every if begun else self.start, progress)
        if since < wait and progress.step < progress.max_steps:
            return f"{since} of {wait} fine-tune steps before the next look"
        return ""

    def _compared(self, progress: Progress, done: list[PhaseRecord]) -> tuple[bool, str]:
        """Whether RISEN pays now, and the gains that say so, in words."""
        risen, risen_gain = self._risen_rate(done)
        if progress.step >= progress.max_steps:
            return risen > 0, f"the run ends, RISEN gained {risen_gain}"
        fine_tuning, fine_tune_gain = self._fine_tune_rate(progress, done)
        gains = f"RISEN gained {risen_gain}, fine-tuning {fine_tune_gain}"
        if risen > max(fine_tuning, 0.0):
            return True, gains
        since = progress.step - last_risen_step(progress)
        if self.again and since >= self._steps(self.again, progress):
            return True, f"RISEN was not tried for {since} fine-tune steps; {gains}"
        why = "fine-tuning gains more" if risen > 0 else "RISEN does not gain"
        return False, f"{why}: {gains}"

    def _steps(self, share: float, progress: Progress) -> int:
        return max(1, round(share * progress.max_steps))

    def _worth(self, gain: Gain) -> float:
        """Gain per second; the gain alone where the time is not known."""
        value = gain.adherence + self.exchange * gain.loss
        return value / gain.seconds if gain.seconds > 0 else value

    def _risen_rate(self, done: list[PhaseRecord]) -> tuple[float, str]:
        latest = done[-self.memory :]
        gain = sum(map(gain_of, latest), Gain())
        return self._in_words(gain, f"{len(latest)} phase{'s' if len(latest) > 1 else ''}")

    def _fine_tune_rate(self, progress: Progress, done: list[PhaseRecord]) -> tuple[float, str]:
        """The gain per second of fine-tuning, in loss and in adherence as the guard measured it."""
        per_step = fine_tune_seconds(progress) / progress.step if progress.step else 0.0
        loss, over = self._loss_gain(progress, done, per_step)
        adherence = _between(done, ADHERENCE, self.memory, per_step)
        rate = self._worth(loss) + self._worth(Gain(adherence.change, 0.0, adherence.seconds))
        both = f"loss {-loss.loss:+.4f} in {loss.seconds:.3g} s over {over}"
        if adherence.count:
            both += f", adherence {adherence.change:+.3f} in {adherence.seconds:.3g} s"
        return rate, f"{rate:+.3g}/s ({both})"

    def _loss_gain(
        self, progress: Progress, done: list[PhaseRecord], per_step: float
    ) -> tuple[Gain, str]:
        inside = [phase for phase in progress.phases if phase.kind != "fine_tune"]
        pairs = _pairs(evaluated(progress, self.metric), inside)[-self.memory :]
        what = "evaluations"
        if not pairs:
            probed = _between(done, PROBE_LOSS, self.memory, per_step)
            if probed.count:
                return Gain(0.0, -probed.change, probed.seconds), "the probe between phases"
            pairs = _pairs(train_loss_blocks(progress, _BLOCK), inside)[-self.memory :]
            what = "means of the training loss, having no evaluations"
        if not pairs:
            return Gain(), "nothing measured yet"
        steps = sum(later[0] - earlier[0] for earlier, later in pairs)
        fall = sum(earlier[1] - later[1] for earlier, later in pairs)
        count = f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of {what}"
        return Gain(0.0, fall, steps * per_step), count

    def _in_words(self, gain: Gain, over: str) -> tuple[float, str]:
        rate = self._worth(gain)
        return rate, (
            f"{rate:+.3g}/s (adherence {gain.adherence:+.3f}, loss {-gain.loss:+.4f} in "
            f"{gain.seconds:.3g} s over {over})"
        )

    def _risen(self, reason: str) -> Decision:
        return Decision("risen", self.steps, self.parameters, f"benefit: {reason}")


@dataclass(frozen=True)
class _Between:
    """The change of a measurement from the end of RISEN phases to the beginning of the next."""

    change: float = 0.0
    seconds: float = 0.0
    count: int = 0


def _between(done: list[PhaseRecord], name: str, memory: int, per_step: float) -> _Between:
    changes = []
    for earlier, later in itertools.pairwise(done):
        left = held_by_model(earlier, name)
        met = as_number(later.metrics.get(f"{name}_before"))
        if left is not None and met is not None:
            changes.append((met - left, later.at_step - earlier.at_step))
    latest = changes[-memory:]
    return _Between(
        sum(change for change, _ in latest),
        per_step * sum(steps for _, steps in latest),
        len(latest),
    )


def _pairs(
    series: Series, inside: list[PhaseRecord]
) -> list[tuple[tuple[int, float], tuple[int, float]]]:
    """Neighbours in the series without a RISEN phase or burst between them or at either."""
    return [
        (earlier, later)
        for earlier, later in itertools.pairwise(series)
        if later[0] > earlier[0]
        and not any(earlier[0] <= phase.at_step <= later[0] for phase in inside)
    ]


def _fine_tune(reason: str) -> Decision:
    return Decision("fine_tune", reason=f"benefit: {reason}")
