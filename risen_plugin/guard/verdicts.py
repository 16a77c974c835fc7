"""Judge a RISEN phase, while it runs and after it. Pure: measurements in, a verdict out.

A gain counts if the checks that are met rise for sure, a harm if it is beyond its limit for sure;
``changes`` says how sure they are. Measuring and acting are left to others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from risen_plugin.config import GuardConfig
from risen_plugin.guard.changes import ROUNDING, Changes, Harm
from risen_plugin.progress import OF_TASK

CHANCE = "gain may be chance"
"""How the verdict on a phase says that its gain could not be told from chance."""
_JUDGED = ("domain_drop", OF_TASK)  # by a reward or metric of the user's

ActionKind: TypeAlias = Literal["go_on", "stop", "raise_beta", "roll_back", "shrink", "burst"]
When: TypeAlias = Literal["before", "during", "after"]


@dataclass(frozen=True)
class Measured:
    """The model at one moment.

    :param adherence_strict: share of the guard's instructions that are followed entirely.
    :param adherence_soft: mean score over them.
    :param probe_loss: mean loss per token on the probe rows, in nats.
    """

    adherence_strict: float
    adherence_soft: float
    probe_loss: float

    def as_metrics(self, suffix: str = "") -> Mapping[str, float]:
        return {f"{name}{suffix}": value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Verdict:
    """Whether the phase is kept, and why in one line."""

    accepted: bool
    reason: str


@dataclass(frozen=True)
class Action:
    """The next step after a look, and why in one line."""

    kind: ActionKind
    reason: str


@dataclass(frozen=True)
class Look:
    """One look at a phase, by which an action is decided.

    :param gains: the measured gains of the phase so far, the present one last.
    :param beta: the KL coefficient now, and ``max_beta`` the most that it may be.
    :param verdict: of a phase that has ended.
    """

    when: When
    changes: Changes | None = None
    gains: Sequence[float] = ()
    beta: float = 0.0
    max_beta: float = 1.0
    verdict: Verdict | None = None


def judge(before: Measured, after: Measured, config: GuardConfig, changes: Changes) -> Verdict:
    """Keep the phase if adherence rose by ``min_gain``, no harm was done, and all is for sure.

    The gain is for sure if more checks are met than by chance, with every check of a row counted.

    A harm counts against a phase only where it is beyond its limit for sure; one that was not
    measured at the entry never is, and one that is no number any more always is. With a
    ``min_gain`` below 0 the gain must be no less than that, for sure.
    """
    measured = in_numbers(before, after, changes)
    lost = _lost_on_probe(changes)
    if lost is not None:
        return Verdict(False, f"{measured}: {lost}")
    lacking = lacking_gain(changes, config)
    if lacking is not None:
        return Verdict(False, f"{measured}: {lacking}")
    return _unharmed(measured, changes)


def lacking_gain(changes: Changes, config: GuardConfig) -> str | None:
    """Why a gain does not pay; None where it is large enough and more than chance."""
    gain = changes.gain
    if not gain.value >= config.min_gain - ROUNDING:
        return f"gain is less than {config.min_gain:.3f}"
    if config.confidence is not None and not _is_sure(changes, config.min_gain):
        sure = gain if config.min_gain < 0.0 else changes.by_checks
        return (
            f"{CHANCE}, it is for sure only {sure.low:+.3f}"
            f"{'' if sure == gain else ' of the checks'} (confidence {config.confidence:g})"
        )
    return None


def judge_burst(before: Measured, after: Measured, min_gain: float, changes: Changes) -> Verdict:
    """Keep a burst unless it did harm, or adherence gained less than ``min_gain`` for sure.

    A burst repeats solved instructions and brings retention back, so it need not gain.
    """
    measured = in_numbers(before, after, changes)
    lost = _lost_on_probe(changes)
    if lost is not None:
        return Verdict(False, f"{measured}: {lost}")
    gain = changes.gain
    most = gain.high if math.isfinite(gain.high) else gain.value
    if not most >= min_gain - ROUNDING:
        sure = "" if most == gain.value else f", for sure {most:+.3f} at the most"
        return Verdict(
            False, f"{measured}: gain is {gain.value:+.3f}{sure}, less than {min_gain:.3f}"
        )
    return _unharmed(measured, changes)


def in_numbers(before: Measured, after: Measured, changes: Changes) -> str:
    """Both ends of a phase, as a verdict begins."""
    rise = changes.harms["probe_loss_rise"].amount.value
    return (
        f"adherence {before.adherence_strict:.3f} -> {after.adherence_strict:.3f}, "
        f"probe loss {before.probe_loss:.4f} -> {after.probe_loss:.4f} ({rise:+.4f})"
    )


def _lost_on_probe(changes: Changes) -> str | None:
    rise = changes.harms["probe_loss_rise"]
    if not rise.is_beyond:
        return None
    sure = "" if rise.at_least == rise.amount.value else f", for sure by {rise.at_least:.4f}"
    return f"rises by more than {rise.limit:.4f}{sure}"


def _unharmed(measured: str, changes: Changes) -> Verdict:
    """The verdict on a phase that gained enough and lost nothing on the probe."""
    for name, harm in changes.harms.items():
        if harm.is_beyond and name != "probe_loss_rise":
            return Verdict(False, f"{measured}: {harm.sentence()}")
    return Verdict(True, measured)


def act(look: Look, config: GuardConfig) -> Action:
    """The next step: go on, stop, raise beta, roll back, or ask for a fine-tuning burst.

    While a phase runs, a harm beyond its limit for sure rolls it back at once. One that only
    shows raises the KL coefficient, or stops the phase where there is none to raise. No further
    gain in ``patience`` measurements stops it. A kept phase that used up much of a limit
    asks for a burst.
    """
    if look.when == "before" or look.changes is None:
        return Action("go_on", "measured at entry")
    if look.when == "during":
        return _while_it_runs(look, look.changes, config)
    if look.verdict is not None and not look.verdict.accepted:
        return Action("roll_back", look.verdict.reason)
    for harm in look.changes.harms.values():
        if _asks_for_burst(harm, config.burst_at):
            return Action(
                "burst", f"{harm.name} is {harm.amount.value:.4f} of the {harm.limit:.4f} allowed"
            )
    return Action("go_on", look.verdict.reason if look.verdict else "")


def _while_it_runs(look: Look, changes: Changes, config: GuardConfig) -> Action:
    # A judge that gives no number once may give one at the end; a loss that is none stays so.
    harms = [
        harm
        for name, harm in changes.harms.items()
        if not (math.isnan(harm.amount.value) and name.startswith(_JUDGED))
    ]
    for harm in harms:
        if harm.is_beyond:
            return Action("roll_back", harm.sentence())
    for harm in harms:
        if harm.shows and 0.0 < look.beta < look.max_beta:
            return Action("raise_beta", harm.sentence())
        if harm.shows:
            return Action("stop", f"{harm.sentence()}, and there is no beta to raise")
    if _is_flat(look.gains, config):
        return Action(
            "stop", f"held-out adherence is flat: no further gain in {config.patience} measurements"
        )
    return Action("go_on", f"gain {changes.gain.value:+.3f}")


def confidence_of_looks(config: GuardConfig, looks: int) -> float | None:
    """The confidence of each of several looks, so that all of them together keep the configured."""
    if config.confidence is None:
        return None
    return 1.0 - (1.0 - config.confidence) / max(1, looks)


def _is_sure(changes: Changes, min_gain: float) -> bool:
    if min_gain < 0.0:
        return changes.gain.low >= min_gain - ROUNDING
    return changes.by_checks.low > 0.0


def _is_flat(gains: Sequence[float], config: GuardConfig) -> bool:
    """Whether the last ``patience`` gains are no better than those before, entry (0) included."""
    seen = [0.0, *gains]
    if len(seen) <= config.patience:
        return False
    best = max(seen[: -config.patience])
    return not max(seen[-config.patience :]) - best >= max(config.min_gain - ROUNDING, ROUNDING)


def _asks_for_burst(harm: Harm, share: float | None) -> bool:
    if share is None or harm.limit is None or not 0.0 < harm.limit < math.inf:
        return False
    return harm.amount.low > 0.0 and harm.amount.value > share * harm.limit
