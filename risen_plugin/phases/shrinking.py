"""Try a phase again at smaller strengths, where the whole of what it trained gained and did harm.

Which strength is kept is decided by the pure functions of ``guard.strengths``. What is cheap comes
first: the losses and the known facts, and held-out rows only where those speak for the strength.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from risen_plugin.guard.changes import Changes
from risen_plugin.guard.strengths import (
    Part,
    in_words,
    judge_part,
    judge_retention,
    mended_by,
)
from risen_plugin.guard.verdicts import Action
from risen_plugin.phases.guarding import PhaseGuard, finite_of, numbers_of
from risen_plugin.phases.measuring import Measurement
from risen_plugin.progress import GUARD_S
from risen_plugin.training.protocols import AdaptedModel

_BROKEN = "it makes weights infinite or NaN"


class Shrinking:
    """The smaller strengths of one phase that has ended.

    :param guard: of the phase, which has measured the whole.
    :param settle_at: has the model be as it is kept at a strength; whether it can be kept.
    :param as_entered: makes the model the one at phase entry, while it is open.
    """

    def __init__(
        self,
        guard: PhaseGuard,
        trained: AdaptedModel,
        settle_at: Callable[[float], bool],
        as_entered: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.guard = guard
        self.trained = trained
        self.settle_at = settle_at
        self.as_entered = as_entered

    def run(self) -> None:
        """Have the guard keep the largest strength that passes; the whole is put back if none does.

        Nothing is done where the whole is kept, or where more than harm speaks against it.
        """
        guard, phase = self.guard, self.guard.phase
        after, changes, strengths = guard.after, guard.changes, guard.config.strengths
        if after is None or changes is None or after.outage or not phase.can_be_kept:
            return
        whole = guard.judged_whole(changes)
        if not strengths or not whole.may_be_less:
            return
        guard.parts.append(whole)
        self._record(whole, changes, numbers_of(after))
        self._tell(whole, changes, numbers_of(after), is_last=False)
        phase.context.say(
            f"{phase.label}: it gained, but {whole.against}; it is measured again at "
            f"{', then at '.join(map(in_words, strengths))}"
        )
        before = guard.before
        for strength in strengths:
            part, after, changes, numbers = self._tried(strength)
            guard.parts.append(part)
            self._record(part, changes, numbers)
            if part.is_kept and after is not None:
                guard.after, guard.changes = after, changes
                return
            is_last = not part.may_be_less or strength == strengths[-1]
            self._tell(part, changes, numbers, is_last=is_last)
            if is_last:
                break
        guard.before = before  # as many rows as the whole was measured on
        with phase.stopwatch.time(GUARD_S):
            self.settle_at(1.0)

    def _tried(
        self, strength: float
    ) -> tuple[Part, Measurement | None, Changes, Mapping[str, float]]:
        """Measure and judge the phase at a strength, and the numbers that were measured.

        There is no whole measurement where the losses and facts were enough.
        """
        guard, phase, earlier = self.guard, self.guard.phase, self.guard.parts
        moment = f"after, at {in_words(strength)}"
        with phase.stopwatch.time(GUARD_S):
            can_be_kept = self.settle_at(strength)
        retained, changes = guard.measure_retention(self.trained, moment)
        part = judge_retention(strength, changes, earlier)
        if not can_be_kept:
            part = Part(strength, _BROKEN)
        if not part.is_kept:
            return part, None, changes, {"probe_loss": retained.probe_loss}
        after, changes = guard.measure_end(
            self.trained,
            moment,
            self.as_entered,
            retained=retained,
            mended=mended_by(earlier),
            despite_harm=strength != guard.config.strengths[-1],
        )
        part = judge_part(strength, changes, guard.config, earlier)
        if after.outage is not None:
            part = Part(strength, after.outage)
        return part, after, changes, numbers_of(after)

    def _tell(
        self, part: Part, changes: Changes, numbers: Mapping[str, float], *, is_last: bool
    ) -> None:
        """Tell of a strength that is not kept."""
        action = Action("roll_back" if is_last else "shrink", part.against or "")
        self.guard.tell(part.strength, self.guard.phase.steps, numbers, changes, action)

    def _record(self, part: Part, changes: Changes, numbers: Mapping[str, float]) -> None:
        """Remember a strength for the record of the phase."""
        self.guard.tried.append(
            {
                "strength": part.strength,
                "against": part.against,
                "measured": finite_of(numbers),
                "intervals": changes.ends(),
            }
        )
