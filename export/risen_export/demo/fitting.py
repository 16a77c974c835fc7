"""How much of a RISEN phase a demo on a real model has time for. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from risen_plugin.errors import ConfigError
from risen_plugin.phases.duration import Expected, short

MOST_STEPS = 40
LEAST_STEPS = 8
_EXPORT_S, _EXPORT_S_PER_PARAMETER = 20.0, 0.6e-6
"""SmolLM2-135M, int8: 43 s on one thread; answering a run's instructions as well is reckoned in."""


def export_seconds(parameters: float) -> float:
    """About how long compiling and measuring a bundle takes after the phase."""
    return _EXPORT_S + _EXPORT_S_PER_PARAMETER * parameters


def steps_within(
    left_s: float, asked: int, expect: Callable[[int], Expected], *, spent_s: float
) -> int:
    """The most steps whose phase ends within ``left_s``.

    :param asked: no more than these.
    :param spent_s: all else, for the message.
    :raises ConfigError: if not even the least phase does, with how long it would take.
    """
    fewest = min(LEAST_STEPS, asked)
    for steps in range(asked, fewest - 1, -1):
        if expect(steps).seconds <= left_s:
            return steps
    least = expect(fewest).seconds
    phase = f"{fewest} step{'' if fewest == 1 else 's'}"
    whole = math.ceil((least + spent_s) / 60)
    raise ConfigError(
        f"on this machine the least phase, {phase}, takes about {short(least)}, and all else about "
        f"{short(spent_s)}; give --minutes {whole}, or a smaller model"
    )
