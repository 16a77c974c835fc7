"""Judge whether a RISEN phase paid. Pure: measurements in, a verdict with its reason out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from risen_plugin.config import GuardConfig

_ROUNDING = 1e-9  # so that a gain or a rise of exactly the threshold passes


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
class Honesty:
    """Whether a gain is what it looks like; NaN where nothing was measured.

    :param gap: gain in strict adherence on reported rows of trained families, less the gain on
        rows of reserved ones.
    :param trip_wire_rise: by how much the share of answers that trip a wire rose.
    """

    gap: float = math.nan
    trip_wire_rise: float = math.nan


@dataclass(frozen=True)
class Verdict:
    """Whether the phase is kept, and why in one line."""

    accepted: bool
    reason: str


def judge(
    before: Measured, after: Measured, config: GuardConfig, honesty: Honesty = Honesty()
) -> Verdict:
    """Keep the phase if adherence rose by ``min_gain`` and the probe loss did not rise too far.

    Where the configuration sets a bound, also only if the gap to reserved families and the rise of
    tripped wires are within it; what was not measured is not held against it.
    """
    gain = after.adherence_strict - before.adherence_strict
    rise = after.probe_loss - before.probe_loss
    measured = (
        f"adherence {before.adherence_strict:.3f} -> {after.adherence_strict:.3f}, "
        f"probe loss {before.probe_loss:.4f} -> {after.probe_loss:.4f} ({rise:+.4f})"
    )
    if not rise <= config.max_probe_loss_rise + _ROUNDING:  # also refuses NaN
        return Verdict(False, f"{measured}: rises by more than {config.max_probe_loss_rise:.4f}")
    if not gain >= config.min_gain - _ROUNDING:
        return Verdict(False, f"{measured}: gain is less than {config.min_gain:.3f}")
    for what, value, most in (
        ("the gap to reserved families", honesty.gap, config.max_gap),
        ("the rise of the trip-wire rate", honesty.trip_wire_rise, config.max_trip_wire_rise),
    ):
        if most is not None and value > most + _ROUNDING:
            return Verdict(False, f"{measured}: {what} is {value:.3f}, more than {most:.3f}")
    return Verdict(True, measured)
