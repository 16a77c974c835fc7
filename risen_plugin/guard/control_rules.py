"""The rules by which a phase is steered, one small object each. Pure.

The state of each is JSON, so that a checkpoint holds it. Which of them a configuration asks for,
and how they go together, is ``control``'s business.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CLIP = 0.2  # Ziegler et al., 2019: one step answers to no more than this relative error
_RATE_STEP = 1.5
_LEAST_RATE = 0.05  # share of the phase's own rate that the rule does not go below
_HOTTER = 1.1
_LEAST_BETA = 1e-5  # at 0 TRL stops measuring the KL


@dataclass(frozen=True)
class Orders:
    """What is to hold from now on.

    :param beta: the KL coefficient; None leaves it.
    :param rate: the learning rate as a share of the phase's own; None leaves it.
    :param temperature: of sampling; None leaves it.
    :param stop: why the phase should end; None to go on.
    """

    beta: float | None = None
    rate: float | None = None
    temperature: float | None = None
    stop: str | None = None


class AdaptiveKl:
    """Steers ``beta`` so that the KL stays near a target.

    ``beta *= 1 + clip(kl / target - 1, -0.2, 0.2) * steps / horizon`` (Ziegler et al., 2019). What
    it has come to holds for the next phase too, unless that is given another ``beta``.

    >>> controller = AdaptiveKl(target=0.1, horizon=10, most=1.0)
    >>> controller.begin(0.04)
    0.04
    >>> round(controller.update(0.5, steps=1), 5)
    0.0408
    """

    def __init__(self, target: float, horizon: int, most: float) -> None:
        self.target = target
        self.horizon = horizon
        self.most = most
        self.given: float | None = None
        self.beta = self.entry = 0.0

    def begin(self, beta: float) -> float:
        if beta != self.given:
            self.given = self.beta = beta
        self.entry = self.beta
        return self.beta

    def dropped(self) -> None:
        """The phase was put back: the next one is held no more loosely than it was at its entry."""
        self.beta = max(self.beta, self.entry)

    def update(self, kl: float, steps: int) -> float:
        error = min(max(kl / self.target - 1.0, -_CLIP), _CLIP)
        factor = 1.0 + error * min(1.0, steps / self.horizon)
        self.beta = min(max(self.beta * factor, _LEAST_BETA), self.most)
        return self.beta

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given, "beta": self.beta, "entry": self.entry}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.given, self.beta, self.entry = state["given"], state["beta"], state["entry"]


class Mean:
    """The mean of the latest values; None until there are ``window`` of them."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.values: deque[float] = deque(maxlen=window)

    def add(self, value: float) -> float | None:
        self.values.append(value)
        full = len(self.values) == self.values.maxlen
        return math.fsum(self.values) / len(self.values) if full else None

    def clear(self) -> None:
        self.values.clear()

    def begin(self, logs: int) -> None:
        """Start anew in a phase of ``logs`` values: half of them at the most, so that some are left
        for what follows from the mean.
        """
        self.values = deque(maxlen=min(self.window, max(1, logs // 2)))

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values), "window": self.values.maxlen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.values = deque(state["values"], maxlen=state["window"])


class KlBudget:
    """Ends a phase that has gone as far from its entry as it may; each phase begins anew."""

    def __init__(self, budget: float, window: int) -> None:
        self.budget = budget
        self.mean = Mean(window)

    def begin(self, logs: int) -> None:
        self.mean.begin(logs)

    def update(self, kl: float) -> str | None:
        mean = self.mean.add(kl)
        if mean is None or mean < self.budget:
            return None
        return f"the KL budget of {self.budget:g} nats per token is spent: it is {mean:.4f}"

    def state_dict(self) -> dict[str, Any]:
        return self.mean.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean.load_state_dict(state)


class EntropyFloor:
    """Keeps the answers various: samples hotter below the floor, or ends the phase."""

    def __init__(self, floor: float, window: int, most: float, *, heats: bool) -> None:
        self.floor = floor
        self.most = most
        self.heats = heats
        self.mean = Mean(window)
        self.temperature = 1.0
        self.batch = 1
        self.until = 0

    def begin(self, temperature: float, logs: int, batch: int) -> None:
        """Start a phase; its answers last for ``batch`` GRPO steps each."""
        self.mean.begin(logs)
        self.temperature, self.batch, self.until = temperature, batch, 0

    def update(self, entropy: float, step: int, taken: int) -> Orders:
        """What follows from the mean over the latest ``taken`` steps, the last of them ``step``."""
        if step - taken < self.until:
            return Orders()
        mean = self.mean.add(entropy)
        if mean is None or mean >= self.floor:
            return Orders()
        if self.heats and self.temperature < self.most:
            self.temperature = min(self.temperature * _HOTTER, self.most)
            self.mean.clear()  # judged again by what is sampled at the new temperature
            self.until = -(-step // self.batch) * self.batch
            return Orders(temperature=self.temperature)
        hottest = f" at temperature {self.temperature:g}" if self.heats else ""
        return Orders(stop=f"entropy {mean:.4f} is below its floor of {self.floor:g}{hottest}")

    def state_dict(self) -> dict[str, Any]:
        own = {"temperature": self.temperature, "batch": self.batch, "until": self.until}
        return {**self.mean.state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean.load_state_dict(state)
        self.temperature = state["temperature"]
        self.batch, self.until = state["batch"], state["until"]


class ZeroVariance:
    """Ends a phase that has nothing left to learn from: too many groups score all the same.

    Once the share is too large over a window, the instructions that follow are the second chance: a
    curriculum passes over what gave no variance, a generator makes new ones. Too large over the
    next window as well, the phase ends.
    """

    def __init__(self, most: float, window: int) -> None:
        self.most = most
        self.mean = Mean(window)
        self.is_warned = False

    def begin(self) -> None:
        self.mean.clear()
        self.is_warned = False

    def update(self, share: float) -> str | None:
        mean = self.mean.add(share)
        if mean is None:
            return None
        if mean <= self.most:
            self.is_warned = False
            return None
        if not self.is_warned:
            self.is_warned = True
            self.mean.clear()
            return None
        return (
            f"{mean:.0%} of the groups have no variance, more than {self.most:.0%}, also on "
            "instructions drawn anew"
        )

    def state_dict(self) -> dict[str, Any]:
        return {**self.mean.state_dict(), "is_warned": self.is_warned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean.load_state_dict(state)
        self.is_warned = state["is_warned"]


class RateByKl:
    """Slows down where the KL is above twice its target, and takes up speed below half of it."""

    def __init__(self, target: float) -> None:
        self.target = target
        self.rate = 1.0

    def begin(self) -> None:
        self.rate = 1.0

    def update(self, kl: float) -> float:
        if kl > 2.0 * self.target:
            self.rate = max(self.rate / _RATE_STEP, _LEAST_RATE)
        elif kl < 0.5 * self.target:
            self.rate = min(self.rate * _RATE_STEP, 1.0)
        return self.rate

    def state_dict(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rate = state["rate"]


class TemperatureLine:
    """Moves the temperature to ``end`` in equal steps over a phase; state is the phase's own."""

    def __init__(self, end: float) -> None:
        self.end = end
        self.start = end
        self.steps = 1

    def begin(self, start: float, steps: int) -> None:
        self.start, self.steps = start, steps

    def update(self, step: int) -> float:
        share = min(1.0, step / max(1, self.steps - 1))
        return self.start + (self.end - self.start) * share

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.start, self.steps = state["start"], state["steps"]
