"""Keep a part of what a phase trained where the whole of it does harm. Pure.

A change of the weights that gained for sure and did harm is judged again at smaller strengths, the
largest first. A strength is kept where it passes as any phase does, and where no harm that a larger
one was dropped for is measured beyond its limit, be it by chance.

How often a reward by lot is kept does not grow with the number of strengths, and no confidence is
split between them. No strength is tried unless the gain of the whole is more than chance, and none
after one whose own gain is not: a sequence of tests in a fixed order, each at the full level, errs
no more often than one of them (Maurer, Hothorn and Lehmacher, 1995; Westfall and Krishen, 2001).
A strength is passed over without a test of its gain only for what was measured on other rows: the
probe, the forward KL and the known facts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from risen_plugin.config import GuardConfig
from risen_plugin.guard.changes import Changes
from risen_plugin.guard.verdicts import Verdict, lacking_gain
from risen_plugin.kit.intervals import Interval

_IN_WORDS = {
    1.0: "full strength",
    0.75: "three quarters of its strength",
    0.5: "half strength",
    0.25: "a quarter of its strength",
}


def in_words(strength: float) -> str:
    """A strength as a sentence names it, after ``at``.

    >>> in_words(0.5), in_words(0.3)
    ('half strength', '0.3 of its strength')
    """
    return _IN_WORDS.get(strength, f"{strength:g} of its strength")


@dataclass(frozen=True)
class Part:
    """A change that was judged at one strength.

    :param lacking: why its gain does not pay, in words.
    :param harms: those beyond their limits, by name, each in one sentence.
    """

    strength: float
    lacking: str | None = None
    harms: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_kept(self) -> bool:
        """Whether it passed as any phase does."""
        return self.against is None

    @property
    def against(self) -> str | None:
        """Why it is not kept, in words."""
        return self.lacking or next(iter(self.harms.values()), None)

    @property
    def may_be_less(self) -> bool:
        """Whether nothing but harm speaks against it, so that a smaller part may be kept."""
        return self.lacking is None and bool(self.harms)


def judge_part(
    strength: float, changes: Changes, config: GuardConfig, earlier: Sequence[Part] = ()
) -> Part:
    """Judge a change at a strength on all that the guard measures.

    :param earlier: at larger strengths; what those were dropped for counts as it is measured.
    """
    harms = _harms(changes, earlier)
    return Part(strength, lacking_gain(changes, config), harms)


def judge_retention(strength: float, changes: Changes, earlier: Sequence[Part]) -> Part:
    """Judge a change at a strength by the harms that were measured, whatever it gains."""
    return Part(strength, harms=_harms(changes, earlier))


def mended_by(earlier: Sequence[Part]) -> set[str]:
    """The harms that larger strengths were dropped for, by name."""
    return {name for part in earlier for name in part.harms}


def strictly(changes: Changes, names: Collection[str]) -> Changes:
    """The same changes, where the harms of these names count as they were measured.

    A larger strength did them for sure, so that it is for the smaller one to show that they are
    gone.
    """
    harms = {
        name: replace(harm, amount=Interval(*[harm.amount.value] * 3)) if name in names else harm
        for name, harm in changes.harms.items()
    }
    return replace(changes, harms=harms)


def verdict_on_parts(whole: Verdict, parts: Sequence[Part], measured: str) -> Verdict:
    """The verdict on a phase of which smaller strengths were tried.

    :param whole: the verdict on all of it, which is not kept.
    :param parts: all strengths that were judged, the whole first.
    :param measured: the numbers of the last one, in words.
    """
    first, *rest = parts
    if rest and rest[-1].is_kept:
        strength = in_words(rest[-1].strength)
        return Verdict(
            True, f"{measured}: kept at {strength}, since at full strength {first.against}"
        )
    tried = [f"at {in_words(part.strength)}, {part.against}" for part in rest]
    return Verdict(False, "; ".join([whole.reason, *tried]))


def _harms(changes: Changes, earlier: Sequence[Part]) -> dict[str, str]:
    strict = strictly(changes, mended_by(earlier))
    return {name: harm.sentence() for name, harm in strict.harms.items() if harm.is_beyond}
