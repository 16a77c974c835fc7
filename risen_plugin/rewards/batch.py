"""A generation batch with its scores, as every listener to the rewards of a phase gets it.

Frozen. Verdicts, sums, groups and trip wires are computed once for all listeners, when the first of
them asks. Pass rates are counted over batches.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from risen_plugin.contracts import Completion, Prompt
from risen_plugin.rewards.adherence import totals, verdicts
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.rewards.scores import Scores, groups_of
from risen_plugin.rewards.tripwires import tripped

_NOT_OF_THE_ROW = frozenset(
    ("prompt", "completion", "prompts", "completions", "completion_ids")
).union(("trainer_state", "log_extra", "log_metric"))


@dataclass(frozen=True)
class Batch:
    """Answers that were sampled together, and the scores that each reward gave them.

    :param step: GRPO steps that the phase has taken.
    :param columns: the rows' other columns and ``completion_ids``, one value per answer.
    :param scores: each reward's scores, by its name, before anything was left out.
    :param rewards: the run's rewards, which say when an answer passes and how its scores add up.
    :param group: answers to one prompt, side by side; None for each stretch of equal prompts.
    """

    step: int
    prompts: Sequence[Prompt]
    completions: Sequence[Completion]
    columns: Mapping[str, Any]
    scores: Mapping[str, Scores]
    rewards: Sequence[NamedReward] = ()
    group: int | None = None

    def __len__(self) -> int:
        return len(self.completions)

    @cached_property
    def verdicts(self) -> list[bool | None]:
        """For each answer, whether every graded reward passes it; None where none judged it."""
        return verdicts(self.rewards, self.scores)

    @cached_property
    def totals(self) -> list[float | None]:
        """For each answer, the weighted sum of its scores; None where there is none."""
        return totals(self.rewards, self.scores)

    @cached_property
    def groups(self) -> list[range]:
        """The answers to each prompt, by their indices in the batch."""
        if self.group is not None:
            return groups_of(len(self), self.group)
        ends = [
            index for index in range(1, len(self)) if self.prompts[index] != self.prompts[index - 1]
        ]
        edges = [0, *ends, len(self)] if len(self) else []
        return list(itertools.starmap(range, itertools.pairwise(edges)))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The instruction of each answer, put together from the columns."""
        columns = {
            name: values
            for name, values in self.columns.items()
            if name not in _NOT_OF_THE_ROW
            and isinstance(values, list | tuple)
            and len(values) == len(self)
        }
        return [
            {"prompt": prompt, **{name: values[index] for name, values in columns.items()}}
            for index, prompt in enumerate(self.prompts)
        ]

    @cached_property
    def tripped(self) -> list[tuple[str, ...]]:
        """The names of the wires that each answer trips."""
        return list(map(tripped, self.rows, self.completions))

    @property
    def tokens(self) -> int:
        """Tokens of the answers."""
        return sum(len(ids) for ids in self.columns.get("completion_ids", ()))


NO_FAMILY = "all"


class PassRates:
    """The share of passed answers per family, over the latest answers of each.

    Listens to a panel. An answer that a reward failed on is a rollout and counts no further.

    :param window: the latest answers of each family that count.
    """

    def __init__(self, window: int = 256) -> None:
        self.answers: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=window))
        self.rollouts = 0
        self.tokens = 0

    def take(self, batch: Batch) -> None:
        """Count a generation batch."""
        families = batch.columns.get("family") or [None] * len(batch)
        for family, passed in zip(families, batch.verdicts, strict=True):
            if passed is not None:
                self.answers[NO_FAMILY if family in (None, "") else str(family)].append(passed)
        self.rollouts += len(batch)
        self.tokens += batch.tokens

    def rates(self) -> dict[str, float]:
        """The pass rate of every family that has been answered."""
        return {family: sum(seen) / len(seen) for family, seen in self.answers.items() if seen}

    def state_dict(self) -> dict[str, Any]:
        answers = {
            family: [int(passed) for passed in seen] for family, seen in self.answers.items()
        }
        return {"answers": answers, "rollouts": self.rollouts, "tokens": self.tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.answers.clear()
        for family, seen in state["answers"].items():
            self.answers[family].extend(map(bool, seen))
        self.rollouts = state["rollouts"]
        self.tokens = state["tokens"]
