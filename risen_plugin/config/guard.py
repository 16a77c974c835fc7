"""The settings by which the guard of a phase measures and decides: frozen data.

Thresholds that contradict each other are refused here, both of them named.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from risen_plugin.config.choices import read_mappings
from risen_plugin.errors import ConfigError
from risen_plugin.kit.checks import check_between, check_bound, check_whole, is_number, shown
from risen_plugin.kit.fields import checked_fields
from risen_plugin.kit.intervals import least_changed

METRIC = "metric:"
AUTO = "auto"
MOST_ROWS = 384
"""With these a true gain of 0.07 is kept in 9 of 10 cases, in each of the simulated kinds."""


@checked_fields
@dataclass(frozen=True)
class TaskProbe:
    """Rows of a task that a phase should not make worse, and the reward that scores the answers.

    :param rows: instructions with the columns that the reward needs, or the path of a JSON Lines
        file with them; they are answered greedily before and after each phase.
    :param reward: it scores the answers: the name of one of the rewards, or another reward.
    :param max_drop: largest drop of the mean score; None only measures it.
    """

    rows: str | Path | Sequence[Mapping[str, Any]]
    reward: Any
    max_drop: float | None = None

    def __post_init__(self) -> None:
        read_mappings(self, "task", ("reward",))
        check_bound("max_drop of a task", self.max_drop, 0.0)


@checked_fields
@dataclass(frozen=True)
class GuardConfig:
    """When a phase is kept, and when it is stopped or steered while it runs.

    :param rows: held-out instructions that the guard decides by; they are never trained on.
        ``auto`` for as many as ``min_gain`` takes, within ``time_share`` and a quarter of what the
        generator offers.
    :param most_rows: instructions up to which the guard goes on measuring at a phase's end while it
        is open whether the gain is chance; None for ``rows``, and for 384 where they are ``auto``.
    :param time_share: with ``rows: auto``, the most that answering them may take of a phase's time.
    :param report_rows: further held-out instructions whose adherence is reported; 0 for none.
    :param min_gain: least gain in strict adherence that pays (share of instructions).
    :param max_probe_loss_rise: largest rise of the probe loss, in nats per token; 0.05 is a rise of
        the perplexity by 5 %, however small it was.
    :param max_gap: the most by which the gain on trained families may exceed the gain on reserved
        ones (share of instructions); None only measures it.
    :param max_trip_wire_rise: the largest rise of the share of answers that trip a wire, such as
        copied placeholders; None only measures it.
    :param confidence: how sure the guard must be, one-sided: that a gain is above 0, and that a
        harm is beyond its threshold; None compares the measured values as they are.
    :param every: GRPO steps between measurements while a phase runs; 0 for none.
    :param patience: measurements in a row without a further gain after which a phase is stopped.
    :param kl_samples: answers of the model at phase entry by which the forward KL is measured.
    :param max_forward_kl: the largest forward KL from the model at phase entry, in nats per token;
        None only measures it.
    :param domain: the score of the model at its domain: the name of a reward, or another reward,
        for the guard's answers; or ``metric:NAME`` of ``compute_metrics``.
    :param max_domain_drop: the largest drop of it; None only measures it.
    :param facts: questions of fact that come with the package, by which it is measured how many of
        those that the model knew it knows no more; ``auto`` for all of them, 0 for none.
    :param max_facts_lost: the largest share of the known facts that may be lost; None only measures
        it.
    :param tasks: further tasks by name, each with rows and a reward.
    :param strengths: shares of the trained change at which a phase is measured again that gained
        and did harm; the largest that does none is kept. None are tried unless they are named.
    :param beta_factor: the factor by which the KL coefficient grows where a harm shows in a phase.
    :param burst_at: share of a threshold from which a kept phase asks for a fine-tuning burst; None
        for never.
    :param probe_rows: probe rows that are measured at the most.
    :param batch_size: rows answered or probed at once.
    """

    rows: int | str = 64
    most_rows: int | None = None
    time_share: float = 0.25
    report_rows: int = 64
    min_gain: float = 0.01
    max_probe_loss_rise: float = 0.05
    max_gap: float | None = None
    max_trip_wire_rise: float | None = None
    confidence: float | None = 0.99
    every: int = 0
    patience: int = 3
    kl_samples: int = 32
    max_forward_kl: float | None = None
    domain: Any = None
    max_domain_drop: float | None = None
    facts: int | str = 0
    max_facts_lost: float | None = None
    tasks: Mapping[str, TaskProbe] = field(default_factory=dict)
    strengths: Sequence[float] = ()
    beta_factor: float = 2.0
    burst_at: float | None = 0.5
    probe_rows: int = 256
    batch_size: int = 64

    def __post_init__(self) -> None:
        read_mappings(self, "guard", ("domain",))
        if isinstance(self.tasks, Mapping):
            read = {
                name: TaskProbe(**task) if isinstance(task, Mapping) else task
                for name, task in self.tasks.items()
            }
            object.__setattr__(self, "tasks", read)
        for name, least in _LEAST.items():
            check_whole(f"guard.{name}", getattr(self, name), least)
        self._check_rows()
        for name in ("min_gain", "max_probe_loss_rise"):
            value = getattr(self, name)
            if not is_number(value) or math.isnan(value):
                raise ConfigError(f"guard.{name} is {shown(value)}; it is a number")
        for name in ("max_gap", "max_trip_wire_rise"):
            value = getattr(self, name)
            if value is not None and (not is_number(value) or math.isnan(value)):
                raise ConfigError(f"guard.{name} is {shown(value)}; it is a number, or left out")
        for name in ("max_forward_kl", "max_domain_drop", "max_facts_lost", "burst_at"):
            check_bound(f"guard.{name}", getattr(self, name), 0.0)
        self._check_strengths()
        check_between("guard.beta_factor", self.beta_factor, 1.0, math.inf)
        sure = self.confidence
        if sure is not None and (not is_number(sure) or not 0.5 < sure < 1.0):
            raise ConfigError(
                f"guard.confidence is {shown(sure)}; it is a share above 0.5 and below 1, or null "
                "to go by what was measured alone"
            )
        if not isinstance(self.tasks, Mapping) or not all(
            isinstance(name, str) and isinstance(task, TaskProbe)
            for name, task in self.tasks.items()
        ):
            raise ConfigError("guard.tasks is a mapping of names to TaskProbe(rows, reward)")
        self._check_contradictions()

    def _check_rows(self) -> None:
        if isinstance(self.rows, str) and self.rows != AUTO:
            raise ConfigError(
                f"guard.rows is {shown(self.rows)}; it is a whole number from 1, or {AUTO}"
            )
        if not isinstance(self.rows, str):
            check_whole("guard.rows", self.rows, 1)
        if self.most_rows is not None:
            check_whole("guard.most_rows", self.most_rows, 1)
            if not isinstance(self.rows, str) and self.most_rows < self.rows:
                raise ConfigError(
                    f"guard.most_rows is {self.most_rows}, but guard.rows, which are measured in "
                    f"any case, is {self.rows}; raise guard.most_rows, or leave it out"
                )
        if isinstance(self.facts, str) and self.facts != AUTO:
            raise ConfigError(
                f"guard.facts is {shown(self.facts)}; it is a whole number from 0, or {AUTO}"
            )
        if not isinstance(self.facts, str):
            check_whole("guard.facts", self.facts, 0)
        check_between("guard.time_share", self.time_share, 0.0, 1.0)

    def _check_strengths(self) -> None:
        """Put the strengths in their order, the largest first."""
        named = self.strengths
        if isinstance(named, str) or not isinstance(named, Sequence):
            raise ConfigError(
                f"guard.strengths is {shown(named)}; it is a list of shares of the trained "
                "change, such as [0.5, 0.25], or an empty one"
            )
        for strength in named:
            if not is_number(strength) or not 0.0 < strength < 1.0:
                raise ConfigError(
                    f"guard.strengths has {shown(strength)}{_meant(strength)} Each is a share "
                    "above 0 and below 1 of the trained change, which is measured whole first"
                )
        strengths = sorted(map(float, named), reverse=True)
        if len(set(strengths)) < len(strengths):
            raise ConfigError(f"guard.strengths is {list(named)}; name each strength once")
        object.__setattr__(self, "strengths", tuple(strengths))

    def _check_contradictions(self) -> None:
        if self.confidence is not None and 0.0 <= self.min_gain <= 1.0:
            least = least_changed(self.confidence)
            if not isinstance(self.rows, str) and self.rows < least:
                raise ConfigError(
                    f"guard.rows is {self.rows}, but guard.confidence {self.confidence:g} is only "
                    f"reached by {least} rows that all improve, so no phase could be kept; raise "
                    "guard.rows, or set guard.confidence to null"
                )
        if self.max_forward_kl is not None and not self.kl_samples:
            raise ConfigError(
                f"guard.max_forward_kl is {self.max_forward_kl:g}, but guard.kl_samples is 0, so "
                "the forward KL is not measured; raise guard.kl_samples"
            )
        if self.max_facts_lost is not None and not self.facts:
            raise ConfigError(
                f"guard.max_facts_lost is {self.max_facts_lost:g}, but guard.facts is 0, so none "
                f"is asked; set guard.facts to {AUTO}"
            )
        if self.max_domain_drop is not None and self.domain is None:
            raise ConfigError(
                f"guard.max_domain_drop is {self.max_domain_drop:g}, but guard.domain names "
                f"nothing that could drop; name a reward there, or '{METRIC}NAME' of "
                "compute_metrics"
            )

    @property
    def is_auto(self) -> bool:
        """Whether the rows are chosen for each phase."""
        return self.rows == AUTO

    @property
    def rows_apart(self) -> int:
        """The most instructions that are set apart to decide by."""
        if isinstance(self.rows, str):
            return MOST_ROWS if self.most_rows is None else self.most_rows
        return max(self.rows, self.most_rows or 0)

    @property
    def domain_metric(self) -> str | None:
        """The name in ``compute_metrics`` that is the domain's, if one is."""
        if isinstance(self.domain, str) and self.domain.startswith(METRIC):
            return self.domain.removeprefix(METRIC).strip()
        return None

    def describe(self) -> dict[str, Any]:
        """As the record has it: the rows of tasks are counted, not copied."""
        described: dict[str, Any] = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.name != "tasks"
        }
        described["domain"] = None if self.domain is None else _named(self.domain)
        described["tasks"] = {
            name: {
                "rows": str(task.rows) if isinstance(task.rows, str | Path) else len(task.rows),
                "reward": _named(task.reward),
                "max_drop": task.max_drop,
            }
            for name, task in self.tasks.items()
        }
        return described


_LEAST = {
    "report_rows": 0,
    "every": 0,
    "patience": 1,
    "kl_samples": 0,
    "probe_rows": 1,
    "batch_size": 1,
}


def _meant(strength: object) -> str:
    """The share that a percentage means."""
    if is_number(strength) and 1.0 < strength < 100.0:
        return f"; did you mean {strength / 100.0:g}?"
    return "."


def _named(thing: object) -> str:
    if isinstance(thing, str):
        return thing
    name = getattr(thing, "name", None) or getattr(thing, "__name__", None)
    return str(name or type(thing).__name__)
