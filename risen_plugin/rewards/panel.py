"""All rewards of a run as TRL calls them: one function each, and all of them asked together.

TRL calls its reward functions one by one, but which scores it may learn from depends on every
reward. So the first function that it calls for a batch asks all rewards at once. Knows nothing of
models; ``scores`` and ``gate`` decide which scores may be learned from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from risen_plugin.config import BreakerConfig
from risen_plugin.contracts import Completion, Prompt
from risen_plugin.kit.processes import ALONE, Processes
from risen_plugin.progress import REWARD_ERRORS
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.calling import NamedReward, call_all
from risen_plugin.rewards.gate import LIKELIHOOD, Gate, bar, gate
from risen_plugin.rewards.scores import (
    ErrorCount,
    OutageError,
    Scores,
    errors_in,
    learnable,
    outage,
)

Listener: TypeAlias = Callable[[Batch], None]
"""Called with each generation batch, once all rewards have scored it."""

Scorer: TypeAlias = Callable[[list[Prompt], list[Completion], Mapping[str, Any]], Scores]
"""Scores (prompts, completions, columns) by the model in training."""

_FROM_TRL = ("trainer_state", "log_extra", "log_metric")


class TrlReward:
    """One reward as TRL calls it; asks the panel."""

    def __init__(self, panel: Panel, reward: NamedReward) -> None:
        self.panel = panel
        self.__name__ = reward.__name__
        self.weight = reward.weight

    def __call__(
        self, *, prompts: list[Prompt], completions: list[Completion], **columns: Any
    ) -> Scores:
        return self.panel.learnable(self.__name__, prompts, completions, columns)


class Panel:
    """Asks all rewards about each batch of rollouts.

    :param rewards: the run's rewards.
    :param breaker: when too many errors end a phase.
    :param gate: a bar of quality; None for none.
    :param listeners: get each batch, in this order, in every phase.
    :ivar trl_rewards: the reward functions that TRL gets, one per reward.

    Where several processes answer a batch together, each asks the rewards about its own answers.
    Everything else is done in all of them with the answers of all: a group may be spread over them,
    and an error in one of them ends the phase in all.
    """

    def __init__(
        self,
        rewards: Sequence[NamedReward],
        breaker: BreakerConfig | None = None,
        gate: Gate | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.rewards = tuple(rewards)
        self.breaker = breaker or BreakerConfig()
        self.gate = gate
        self.trl_rewards = [TrlReward(self, reward) for reward in rewards]
        self._listeners = list(listeners)
        self._asked = list(rewards)
        if gate is not None and gate.quality is not None and gate.quality not in self._asked:
            self._asked.append(gate.quality)
        self._labels = {reward.__name__: reward.label for reward in self._asked}
        if gate is not None and gate.quality is None:
            self._labels[LIKELIHOOD] = f"quality '{LIKELIHOOD}'"
        self.begin(group=1)

    def begin(
        self,
        *,
        group: int,
        processes: Processes = ALONE,
        likelihood: Scorer | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Start a phase: nothing has been asked, counted or measured in it.

        :param group: answers to one prompt.
        :param processes: those that answer a batch together.
        :param likelihood: the default quality, for a gate that uses it.
        :param state: of a phase that was cut off, to go on counting in it.
        """
        self.group = group
        self.processes = processes
        self.likelihood = likelihood
        self.errors = {name: ErrorCount(self.breaker.window) for name in self._labels}
        self.threshold: float | None = None
        if self.gate is not None and self.gate.config.threshold != "auto":
            self.threshold = float(self.gate.config.threshold)
        self._extras: set[str] = set()
        self._batch: list[Any] | None = None
        self._values: dict[str, Scores] = {}
        if state is not None:
            self._go_on(state)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Give each batch to one more listener, after the others, until this is left."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def state_dict(self) -> dict[str, Any]:
        """The counts and the threshold of the phase so far, as JSON values."""
        return {
            "errors": {name: count.state_dict() for name, count in self.errors.items()},
            "threshold": self.threshold,
            "extras": sorted(self._extras),
        }

    def _go_on(self, state: Mapping[str, Any]) -> None:
        for name, counted in state["errors"].items():
            self.errors[name] = ErrorCount.from_state(self.breaker.window, counted)
        self.threshold = state["threshold"]
        self._extras = set(state["extras"])

    def end(self) -> None:
        """Let go of the model and of the last batch."""
        self.likelihood = None
        self._batch = None
        self._values = {}

    def learnable(
        self,
        name: str,
        prompts: list[Prompt],
        completions: list[Completion],
        columns: Mapping[str, Any],
    ) -> Scores:
        """The scores of one reward that TRL may learn from.

        Calls with the same list object of completions are about the same batch. The list is held
        until TRL has fetched the scores of each reward, once each.

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
        self, prompts: list[Prompt], completions: list[Completion], columns: Mapping[str, Any]
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

        rows = {name: value for name, value in columns.items() if name not in _FROM_TRL}

        def ask() -> _Share:
            scores = call_all(self._asked, arguments, len(completions))
            if self.gate is not None and self.gate.quality is None:
                assert self.likelihood is not None, "a phase begins with a likelihood"
                scores[LIKELIHOOD] = self.likelihood(prompts, completions, rows)
            return _Share(prompts, completions, rows, scores)

        shares = self.processes.gather(ask)
        self._pass_on(logs, shares[self.processes.rank].scores, columns, len(completions))
        step = int(getattr(columns.get("trainer_state"), "global_step", 0))
        batch = self._batch_of(shares, step)
        for listener in self._listeners:
            listener(batch)
        self._count(batch.scores)
        values = learnable(batch.scores, batch.groups)
        self._apply_gate(values)
        start = sum(len(share.completions) for share in shares[: self.processes.rank])
        mine = slice(start, start + len(completions))
        return {reward.__name__: values[reward.__name__][mine] for reward in self.rewards}

    def _batch_of(self, shares: Sequence[_Share], step: int) -> Batch:
        """The shares of all processes as one batch, in the order that TRL puts them in."""
        whole = shares[0] if len(shares) == 1 else _Share.joined(shares)
        return Batch(
            step,
            whole.prompts,
            whole.completions,
            whole.columns,
            whole.scores,
            rewards=self.rewards,
            group=self.group,
        )

    def _count(self, scores: Mapping[str, Scores]) -> None:
        for name, count in self.errors.items():
            count.add(scores[name])
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
                passes_at=self.gate.reward.grading.passes_at,
                threshold=self.threshold,
            )

    def _pass_on(
        self,
        logs: Mapping[str, _Logs],
        scores: Mapping[str, Scores],
        columns: Mapping[str, Any],
        rows: int,
    ) -> None:
        """Give TRL the values that the rewards logged, in their order, and the errors of each.

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
                log_metric(f"{REWARD_ERRORS}{name}", float(len(errors_in(scores[name]))))


@dataclass(frozen=True)
class _Share:
    """The answers of one process with their scores; it travels between processes."""

    prompts: list[Prompt]
    completions: list[Completion]
    columns: Mapping[str, Any]
    scores: dict[str, Scores]

    @classmethod
    def joined(cls, shares: Sequence[_Share]) -> _Share:
        first = shares[0]
        return cls(
            [prompt for share in shares for prompt in share.prompts],
            [completion for share in shares for completion in share.completions],
            {
                name: [value for share in shares for value in share.columns[name]]
                for name, values in first.columns.items()
                if isinstance(values, list)
            },
            {
                name: [score for share in shares for score in share.scores[name]]
                for name in first.scores
            },
        )


class _Logs:
    """The values that one reward logs in a call; later ones are dropped."""

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
