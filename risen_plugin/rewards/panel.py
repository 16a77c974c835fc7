"""All rewards of a run as TRL gets to see them: one column each, decided together.

TRL calls its reward functions one by one, but what may be learned from an answer depends on what
every reward says of it. So TRL is given a column per reward; the first one that is called for a
batch has all rewards asked at once. Knows nothing of models; what may be learned is decided in
``outcomes`` and ``gate``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from risen_plugin.config import BreakerConfig, GateConfig
from risen_plugin.kit.processes import ALONE
from risen_plugin.rewards.calling import call_all
from risen_plugin.rewards.gate import bar, gate
from risen_plugin.rewards.named import NamedReward
from risen_plugin.rewards.scores import (
    ErrorCount,
    OutageError,
    Scores,
    errors_in,
    groups_of,
    learnable,
    outage,
)

Listener: TypeAlias = Callable[
    [int, list[Any], list[Any], Mapping[str, Any], Mapping[str, Scores]], None
]
"""Called with (step, prompts, completions, columns, outcomes) after each generation batch.

``step`` counts the GRPO steps that the phase has taken, ``columns`` are the rows' other columns and
``completion_ids``, and ``outcomes`` is what each reward said, before anything was left out.
"""

Scorer: TypeAlias = Callable[[list[Any], list[Any], Mapping[str, Any]], Scores]
"""Scores (prompts, completions, columns) by the model in training."""

LIKELIHOOD = "likelihood"
_TRLS_OWN = ("trainer_state", "log_extra", "log_metric")


class Column:
    """One reward as TRL gets it; asks the panel."""

    def __init__(self, panel: Panel, reward: NamedReward) -> None:
        self.panel = panel
        self.__name__ = reward.__name__
        self.weight = reward.weight

    def __call__(self, *, prompts: list[Any], completions: list[Any], **columns: Any) -> Scores:
        return self.panel.column(self.__name__, prompts, completions, columns)


@dataclass(frozen=True)
class Gate:
    """A configured gate with its parts: whose values it changes, and by what.

    :param reward: the verifiable reward.
    :param quality: the reward that scores quality; None for the model's own likelihood.
    """

    config: GateConfig
    reward: NamedReward
    quality: NamedReward | None = None

    @property
    def quality_name(self) -> str:
        return LIKELIHOOD if self.quality is None else self.quality.__name__

    def describe(self) -> dict[str, Any]:
        """The gate as the record has it."""
        return {
            "reward": self.reward.__name__,
            "quality": self.quality_name,
            "threshold": self.config.threshold,
            "quantile": self.config.quantile,
        }


class Panel:
    """Asks all rewards about each batch of rollouts.

    :param rewards: the run's rewards.
    :param breaker: when too many errors end a phase.
    :param gate: a bar of quality; None for none.

    Where several processes answer a batch together, each asks the rewards about its own answers.
    Everything else is done in all of them with the answers of all: a group may be spread over them,
    and what one of them cannot score ends the phase in all.
    """

    def __init__(
        self,
        rewards: Sequence[NamedReward],
        breaker: BreakerConfig | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.breaker = breaker or BreakerConfig()
        self.gate = gate
        self.listeners: list[Listener] = []
        self.processes = ALONE
        self.columns = [Column(self, reward) for reward in rewards]
        self._asked = list(rewards)
        if gate is not None and gate.quality is not None and gate.quality not in self._asked:
            self._asked.append(gate.quality)
        self._labels = {reward.__name__: reward.label for reward in self._asked}
        if gate is not None and gate.quality is None:
            self._labels[LIKELIHOOD] = f"quality '{LIKELIHOOD}'"
        self.begin(group=1)

    def begin(self, *, group: int, likelihood: Scorer | None = None) -> None:
        """Start a phase: nothing has been asked, counted or measured in it.

        :param group: answers to one prompt.
        :param likelihood: the default quality, for a gate that uses it.
        """
        self.group = group
        self.likelihood = likelihood
        self.errors = {name: ErrorCount(self.breaker.window) for name in self._labels}
        self.threshold: float | None = None
        if self.gate is not None and self.gate.config.threshold != "auto":
            self.threshold = float(self.gate.config.threshold)
        self._extras: set[str] = set()
        self._batch: list[Any] | None = None
        self._values: dict[str, Scores] = {}

    def state_dict(self) -> dict[str, Any]:
        """What was counted and measured in the phase so far, as JSON values."""
        return {
            "errors": {
                name: {
                    "errors": count.errors,
                    "completions": count.completions,
                    "example": count.example,
                    "latest": [int(failed) for failed in count.latest],
                }
                for name, count in self.errors.items()
            },
            "threshold": self.threshold,
            "extras": sorted(self._extras),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting in a phase that has begun."""
        for name, told in state["errors"].items():
            count = self.errors[name]
            count.errors, count.completions = told["errors"], told["completions"]
            count.example = told["example"]
            count.latest.extend(map(bool, told["latest"]))
        self.threshold = state["threshold"]
        self._extras = set(state["extras"])

    def end(self) -> None:
        """Let go of the model and of the last batch."""
        self.likelihood = None
        self._batch = None
        self._values = {}

    def column(
        self, name: str, prompts: list[Any], completions: list[Any], columns: Mapping[str, Any]
    ) -> Scores:
        """What TRL may learn from one reward.

        A batch is known by its very list of completions, which is held while it is looked at, and
        each column of it is handed out once.

        :raises OutageError: if a reward fails too often.
        :raises RisenError: if a reward fails that stops on errors.
        """
        if completions is not self._batch or name not in self._values:
            self._values = self._ask(prompts, completions, columns)
            self._batch = completions
        values = self._values.pop(name)
        if not self._values:
            self._batch = None
        return values

    def _ask(
        self, prompts: list[Any], completions: list[Any], columns: Mapping[str, Any]
    ) -> dict[str, Scores]:
        logs = {reward.__name__: _Logs() for reward in self._asked}

        def arguments(reward: NamedReward) -> dict[str, Any]:
            log = logs[reward.__name__]
            return {
                **columns,
                "prompts": list(prompts),
                "completions": list(completions),
                "log_extra": log.log_extra,
                "log_metric": log.log_metric,
            }

        rows = {name: value for name, value in columns.items() if name not in _TRLS_OWN}

        def ask() -> _Batch:
            outcomes = call_all(self._asked, arguments, len(completions))
            if self.gate is not None and self.gate.quality is None:
                assert self.likelihood is not None, "a phase begins with a likelihood"
                outcomes[LIKELIHOOD] = self.likelihood(prompts, completions, rows)
            return _Batch(prompts, completions, rows, outcomes)

        parts = self.processes.gather(ask)
        own = parts[self.processes.rank]
        self._pass_on(logs, own.outcomes, columns, len(completions))
        batch = _Batch.of(parts)
        step = int(getattr(columns.get("trainer_state"), "global_step", 0))
        for listener in self.listeners:
            listener(step, batch.prompts, batch.completions, batch.rows, batch.outcomes)
        self._count(batch.outcomes)
        values = learnable(batch.outcomes, groups_of(len(batch.completions), self.group))
        self._apply_gate(values)
        start = sum(len(part.completions) for part in parts[: self.processes.rank])
        mine = slice(start, start + len(completions))
        return {column.__name__: values[column.__name__][mine] for column in self.columns}

    def _count(self, outcomes: Mapping[str, Scores]) -> None:
        for name, count in self.errors.items():
            count.add(outcomes[name])
        for name, count in self.errors.items():
            line = outage(
                self._labels[name],
                sum(count.latest),
                len(count.latest),
                self.breaker.max_error_rate,
                count.example,
            )
            if line is not None:
                raise OutageError(line)

    def _apply_gate(self, values: dict[str, Scores]) -> None:
        if self.gate is None:
            return
        qualities = values[self.gate.quality_name]
        if self.threshold is None:
            self.threshold = bar(qualities, self.gate.config.quantile)
        if self.threshold is not None:
            name = self.gate.reward.__name__
            values[name] = gate(
                values[name],
                qualities,
                passes_at=self.gate.reward.passes_at,
                threshold=self.threshold,
            )

    def _pass_on(
        self,
        logs: Mapping[str, _Logs],
        outcomes: Mapping[str, Scores],
        columns: Mapping[str, Any],
        rows: int,
    ) -> None:
        """Give TRL what the rewards logged, in their order, and the errors of each.

        A column that a failed reward did not log this time is empty, not the last batch's.
        """
        log_extra, log_metric = columns.get("log_extra"), columns.get("log_metric")
        extras: dict[str, list[Any]] = defaultdict(list)
        for log in logs.values():
            log.closed = True
            for column, values in list(log.extras):
                extras[column].extend(values)
        if log_extra is not None:
            for column in sorted(self._extras - extras.keys()):
                extras[column] = [None] * rows
            for column, values in extras.items():
                log_extra(column, values)
            self._extras |= extras.keys()
        if log_metric is not None:
            for log in logs.values():
                for metric, value in list(log.metrics):
                    log_metric(metric, value)
            for name in self.errors:
                log_metric(f"reward_errors/{name}", float(len(errors_in(outcomes[name]))))


@dataclass(frozen=True)
class _Batch:
    """Answers with what the rewards said of them.

    :param rows: the rows' other columns.
    """

    prompts: list[Any]
    completions: list[Any]
    rows: Mapping[str, Any]
    outcomes: dict[str, Scores]

    @classmethod
    def of(cls, parts: Sequence[_Batch]) -> _Batch:
        """The parts of all processes as one, in the order in which TRL puts them together."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        return cls(
            [prompt for part in parts for prompt in part.prompts],
            [completion for part in parts for completion in part.completions],
            {
                name: [value for part in parts for value in part.rows[name]]
                for name, values in first.rows.items()
                if isinstance(values, list)
            },
            {
                name: [score for part in parts for score in part.outcomes[name]]
                for name in first.outcomes
            },
        )


class _Logs:
    """What one reward logs in a call; a call that is given up logs nothing any more."""

    def __init__(self) -> None:
        self.extras: list[tuple[str, list[Any]]] = []
        self.metrics: list[tuple[str, float]] = []
        self.closed = False

    def log_extra(self, column: str, values: list[Any]) -> None:
        if not self.closed:
            self.extras.append((column, values))

    def log_metric(self, name: str, value: float) -> None:
        if not self.closed:
            self.metrics.append((name, value))
