"""The rules by which a phase is steered, one small object each. Pure.

Each begins with every phase and observes every log; its state is JSON, so that a checkpoint holds
it. ``controllers`` puts together those that a configuration asks for.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from risen_plugin.config.grpo import steps_per_batch

_CLIP = 0.2  # Ziegler et al., 2019: one step answers to no more than this relative error
_RATE_STEP = 1.5
_LEAST_RATE = 0.05  # share of the phase's own rate that the rule does not go below
_HOTTER = 1.1
_LEAST_BETA = 1e-5  # at 0 TRL stops measuring the KL


@dataclass(frozen=True)
class PhaseStart:
    """The numbers that a phase begins with.

    :param steps: GRPO steps that the phase is to take.
    :param logs: how often TRL will log in them.
    :param batch: GRPO steps for which the answers of one generation batch last.
    """

    beta: float = 0.0
    temperature: float = 1.0
    steps: int = 1
    logs: int = 1
    batch: int = 1

    @classmethod
    def of(cls, grpo: Mapping[str, Any], steps: int, processes: int = 1) -> PhaseStart:
        """The numbers of a phase with these fields of ``GRPOConfig``."""
        every = grpo.get("logging_steps", 1)
        return cls(
            beta=float(grpo.get("beta", 0.0)),
            temperature=float(grpo.get("temperature", 1.0)),
            steps=steps,
            logs=steps // max(1, math.ceil(every * steps if every < 1 else every)),
            batch=max(1, int(steps_per_batch(grpo, processes))),
        )


@dataclass(frozen=True)
class Orders:
    """Settings that hold from now on.

    :param beta: the KL coefficient; None leaves it.
    :param rate: the learning rate as a share of the phase's own; None leaves it.
    :param temperature: of sampling; None leaves it.
    :param stop: why the phase should end; None to go on.
    """

    beta: float | None = None
    rate: float | None = None
    temperature: float | None = None
    stop: str | None = None

    def before(self, others: Orders) -> Orders:
        """These orders, and ``others`` where these leave something as it is."""
        return Orders(
            **{**asdict(others), **{k: v for k, v in asdict(self).items() if v is not None}}
        )


class Rule:
    """One rule of steering."""

    saved: ClassVar[tuple[str, ...]] = ()
    """The attributes that are its state."""

    def begin(self, phase: PhaseStart) -> Orders:
        """Start a phase; the orders that hold from its first step on."""
        return Orders()

    def observe(self, step: int, numbers: Mapping[str, float]) -> Orders:
        """The orders that follow from the numbers logged for GRPO step ``step``."""
        raise NotImplementedError

    def take_beta(self, beta: float) -> None:
        """The guard has set the KL coefficient to ``beta``."""

    def drop(self) -> None:
        """The phase was not kept."""

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.saved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in self.saved:
            setattr(self, name, state[name])


class AdaptiveKl(Rule):
    """Steers ``beta`` so that the KL stays near a target.

    ``beta *= 1 + clip(kl / target - 1, -0.2, 0.2) * steps / horizon`` (Ziegler et al., 2019). The
    ``beta`` that it has reached holds for the next phase too, unless that begins with another.

    >>> rule = AdaptiveKl(target=0.1, horizon=10, most=1.0)
    >>> rule.begin(PhaseStart(beta=0.04)).beta is None
    True
    >>> round(rule.observe(1, {"kl": 0.5}).beta, 5)
    0.0408
    """

    saved = ("given", "beta", "entry", "step")

    def __init__(self, target: float, horizon: int, most: float) -> None:
        self.target, self.horizon, self.most = target, horizon, most
        self.given: float | None = None
        self.beta = self.entry = 0.0
        self.step = 0

    def begin(self, phase: PhaseStart) -> Orders:
        if phase.beta != self.given:
            self.given = self.beta = phase.beta
        self.entry, self.step = self.beta, 0
        return Orders(beta=self.beta) if self.beta != phase.beta else Orders()

    def observe(self, step: int, numbers: Mapping[str, float]) -> Orders:
        taken, self.step = max(1, step - self.step), step
        kl = _finite(numbers, "kl")
        if kl is None:
            return Orders()
        error = min(max(kl / self.target - 1.0, -_CLIP), _CLIP)
        factor = 1.0 + error * min(1.0, taken / self.horizon)
        self.beta = min(max(self.beta * factor, _LEAST_BETA), self.most)
        return Orders(beta=self.beta)

    def take_beta(self, beta: float) -> None:
        self.beta = beta

    def drop(self) -> None:
        """The phase was put back: the next one is held no more loosely than it was at its entry."""
        self.beta = max(self.beta, self.entry)


class RateByKl(Rule):
    """Slows down where the KL is above twice its target, and takes up speed below half of it."""

    saved = ("rate",)

    def __init__(self, target: float) -> None:
        self.target = target
        self.rate = 1.0

    def begin(self, phase: PhaseStart) -> Orders:
        self.rate = 1.0
        return Orders()

    def observe(self, step: int, numbers: Mapping[str, float]) -> Orders:
        kl = _finite(numbers, "kl")
        if kl is None:
            return Orders()
        if kl > 2.0 * self.target:
            self.rate = max(self.rate / _RATE_STEP, _LEAST_RATE)
        elif kl < 0.5 * self.target:
            self.rate = min(self.rate * _RATE_STEP, 1.0)
        return Orders(rate=self.rate)


class TemperatureLine(Rule):
    """Moves the temperature to ``end`` in equal steps over a phase."""

    saved = ("start", "steps")

    def __init__(self, end: float) -> None:
        self.end = self.start = end
        self.steps = 1

    def begin(self, phase: PhaseStart) -> Orders:
        self.start, self.steps = phase.temperature, phase.steps
        return Orders()

    def observe(self, step: int, numbers: Mapping[str, float]) -> Orders:
        share = min(1.0, step / max(1, self.steps - 1))
        return Orders(temperature=self.start + (self.end - self.start) * share)


class WindowRule(Rule):
    """A rule that goes by the mean of the latest ``window`` values of one logged number."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.values: deque[float] = deque(maxlen=window)

    def begin(self, phase: PhaseStart) -> Orders:
        """Start anew, with a window of at most half of the phase's logs.

        So some logs are left for the orders that follow from the mean.
        """
        self.values = deque(maxlen=min(self.window, max(1, phase.logs // 2)))
        return Orders()

    def mean_with(self, value: float) -> float | None:
        """The mean with ``value`` as the latest; None until the window is full."""
        self.values.append(value)
        is_full = len(self.values) == self.values.maxlen
        return math.fsum(self.values) / len(self.values) if is_full else None

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "values": list(self.values), "window": self.values.maxlen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.values = deque(state["values"], maxlen=state["window"])


class KlBudget(WindowRule):
    """Ends a phase that has gone as far from its entry as it may; each phase begins anew."""

    def __init__(self, budget: float, window: int) -> None:
        super().__init__(window)
        self.budget = budget

    def observe(self, step: int, numbers: Mapping[str, float]) -> Orders:
        kl = _finite(numbers, "kl")
        mean = None if kl is None else self.mean_with(kl)
        if mean is None or mean < self.budget:
            return Orders()
        spent = f"the KL budget of {self.budget:g} nats per token is spent: it is {mean:.4f}"
        return Orders(stop=spent)


class EntropyFloor(WindowRule):
    """Keeps the answers various: samples hotter below the floor, or ends the phase."""

    saved = ("temperature", "batch", "until", "step")

    def __init__(self, floor: float, window: int, most: float, *, heats: bool) -> None:
        super().__init__(window)
        self.floor, self.most, self.heats = floor, most, heats
        self.temperature = 1.0
        self.batch = 1
        self.until = self.step = 0

    def begin(self, phase: PhaseStart) -> Orders:
        self.temperature, self.batch, self.until, self.step = phase.temperature, phase.batch, 0, 0
        return super().begin(phase)

    def observe(self, step: int, numbers: Mapping[str, float]) -> Orders:
        before, self.step = min(self.step, step - 1), step
        entropy = _finite(numbers, "entropy")
        if entropy is None or before < self.until:
            return Orders()
        mean = self.mean_with(entropy)
        if mean is None or mean >= self.floor:
            return Orders()
        if self.heats and self.temperature < self.most:
            self.temperature = min(self.temperature * _HOTTER, self.most)
            self.values.clear()  # judged again by answers at the new temperature
            self.until = -(-step // self.batch) * self.batch
            return Orders(temperature=self.temperature)
        hottest = f" at temperature {self.temperature:g}" if self.heats else ""
        return Orders(stop=f"entropy {mean:.4f} is below its floor of {self.floor:g}{hottest}")


class ZeroVariance(WindowRule):
    """Ends a phase that has nothing left to learn from: too many groups score all the same.

    Once the share is too large over a window, the instructions that follow are the second chance: a
    curriculum passes over those without variance, a generator makes new ones. Too large over the
    next window as well, the phase ends.
    """

    saved = ("is_warned",)

    def __init__(self, most: float, window: int) -> None:
        super().__init__(window)
        self.most = most
        self.is_warned = False

    def begin(self, phase: PhaseStart) -> Orders:
        """Start anew, with the whole window also in a short phase: it takes two to end one."""
        self.values.clear()
        self.is_warned = False
        return Orders()

    def observe(self, step: int, numbers: Mapping[str, float]) -> Orders:
        share = _finite(numbers, "frac_reward_zero_std")
        mean = None if share is None else self.mean_with(share)
        if mean is None:
            return Orders()
        if mean <= self.most:
            self.is_warned = False
            return Orders()
        if not self.is_warned:
            self.is_warned = True
            self.values.clear()
            return Orders()
        return Orders(
            stop=f"{mean:.0%} of the groups have no variance, more than {self.most:.0%}, also on "
            "instructions drawn anew"
        )


def _finite(numbers: Mapping[str, float], name: str) -> float | None:
    value = numbers.get(name)
    return value if value is not None and math.isfinite(value) else None
