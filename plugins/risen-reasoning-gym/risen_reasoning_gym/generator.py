"""Draw instructions from the tasks of reasoning-gym, at a level that the model can learn from.

A row is a function of the seed, its number in the run and the task's level, so that a resumed run
sees what an uninterrupted one sees. Only the levels are state.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_reasoning_gym import catalogue
from risen_reasoning_gym.entries import Entry, written
from risen_reasoning_gym.isolation import isolated

_TRIES = 5  # draws of an item before a task is given up; some tasks do not always find one
ASKED = "Give the final answer, and nothing else, between <answer> and </answer>."


@dataclass(frozen=True)
class Tasks:
    """Instructions from the tasks of reasoning-gym, with what their scorers need.

    Rows have ``answer`` (None where a task knows no single one), ``task``, ``entry`` (JSON for the
    reward ``reasoning-gym``), ``family`` (the task) and ``level``. ``start`` in the context is the
    number of rows drawn before, and ``run_seed`` takes the place of the seed.

    :param tasks: names of tasks, or each with its weight in the draw.
    :param config: for each task, fields of its configuration in reasoning-gym.
    :param level: of each task's curriculum: a number, or ``adapt`` to begin with the lowest and
        follow the pass rates. Without it, and for tasks without a curriculum, a task's defaults.
    :param raise_at: the pass rate from which ``adapt`` goes one level up.
    :param lower_at: the pass rate down to which it goes one level down.
    :param patience: rows of a task between two changes of its level, so that the pass rate is
        that of the present one.
    :param asked: a text that is added to each question; empty for none.
    :param chat: whether prompts are chats of one message.
    """

    tasks: Sequence[str] | Mapping[str, float]
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    level: int | Literal["adapt"] | None = None
    raise_at: float = 0.7
    lower_at: float = 0.3
    patience: int = 32
    asked: str = ASKED
    chat: bool = True

    columns: ClassVar[tuple[str, ...]] = ("answer", "task", "entry", "family", "level")
    _levels: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _since: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.lower_at < self.raise_at <= 1:
            raise ConfigError(
                "0 <= lower_at < raise_at <= 1 does not hold for "
                f"{self.lower_at} and {self.raise_at}"
            )
        if self.patience < 1:
            raise ConfigError(f"patience is {self.patience}, but must be at least 1")
        _check_weights(self._weights)
        for task in self._weights:
            catalogue.check_task(task)
        for task, fields in self.config.items():
            if task not in self._weights:
                hint = near_miss(str(task), self._weights)
                raise ConfigError(f"config names '{task}', which is not among the tasks{hint}")
            if not isinstance(fields, Mapping):
                raise ConfigError(f"config of '{task}' must map fields to values, not {fields!r}")
            catalogue.check_config(task, fields)
        if self.level is not None:
            self._check_levels()

    def __call__(
        self,
        *,
        count: int,
        seed: int,
        start: int = 0,
        pass_rates: Mapping[str, float] | None = None,
        **context: Any,
    ) -> Iterator[Row]:
        """``count`` rows.

        :raises DataError: if a task finds no item, with its own reason.
        """
        seed = context.get("run_seed", seed)
        if self.level == "adapt":
            self._adapt(pass_rates or {})
        names, weights = list(self._weights), list(self._weights.values())
        for index in range(start, start + count):
            rng = random.Random(f"reasoning-gym {seed} {index}")
            [task] = rng.choices(names, weights)
            if self.level == "adapt" and pass_rates:
                self._since[task] = self._since.get(task, 0) + 1
            yield self._row(task, seed, index)

    def state_dict(self) -> dict[str, Any]:
        """The levels, and the rows drawn at each."""
        return {"levels": dict(self._levels), "since": dict(self._since)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        for counts, name in ((self._levels, "levels"), (self._since, "since")):
            counts.clear()
            counts.update(state[name])

    @property
    def _weights(self) -> Mapping[str, float]:
        if isinstance(self.tasks, Mapping):
            return self.tasks
        return dict.fromkeys(self.tasks, 1.0)

    @functools.cached_property
    def _ladders(self) -> dict[str, list[int]]:
        """The usable levels of each task."""
        return {t: catalogue.levels_of(t, self.config.get(t, {})) for t in self._weights}

    def _check_levels(self) -> None:
        if not any(self._ladders.values()):
            raise ConfigError(f"level is {self.level!r}, but none of the tasks has a curriculum")
        for task, ladder in self._ladders.items():
            if isinstance(self.level, int) and ladder and self.level not in ladder:
                raise ConfigError(
                    f"the task '{task}' has no level {self.level}; it has: "
                    f"{', '.join(map(str, ladder))}"
                )

    def _adapt(self, pass_rates: Mapping[str, float]) -> None:
        for task, ladder in self._ladders.items():
            rate = pass_rates.get(task)
            if not ladder or rate is None or self._since.get(task, 0) < self.patience:
                continue
            rung = ladder.index(self._levels.get(task, ladder[0]))
            step = 1 if rate >= self.raise_at else -1 if rate <= self.lower_at else 0
            moved = ladder[min(max(rung + step, 0), len(ladder) - 1)]
            if moved != ladder[rung]:
                self._levels[task], self._since[task] = moved, 0

    def _level(self, task: str) -> int | None:
        if self.level is None or not self._ladders[task]:
            return None
        return (
            self._levels.get(task, self._ladders[task][0]) if self.level == "adapt" else self.level
        )

    def _row(self, task: str, seed: int, index: int) -> Row:
        config, level = self.config.get(task, {}), self._level(task)
        entry = _item(Entry(task, {}, config, level), seed, index)
        item = entry.item
        text = f"{item['question']}\n\n{self.asked}" if self.asked else str(item["question"])
        answer = item["answer"]
        return {
            "prompt": [{"role": "user", "content": text}] if self.chat else text,
            "answer": None if answer is None else str(answer),
            "task": task,
            "entry": written(entry, catalogue.version()),
            "family": task,
            "level": level or 0,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_ladders"}


def _check_weights(weights: Mapping[str, float]) -> None:
    if not weights:
        raise ConfigError("tasks must name at least one task of reasoning-gym")
    for task, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"the weight of '{task}' is a number, not {weight!r}")
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"the weight of '{task}' is {weight}, but must be above 0")


def _item(entry: Entry, seed: int, index: int) -> Entry:
    """``entry`` with the item of row ``index`` of the run."""
    chunk, offset = divmod(index, catalogue.CHUNK)
    config, reason = json.dumps(dict(entry.config)), ""
    for attempt in range(_TRIES):
        what = json.dumps([seed, entry.task, chunk, attempt]).encode()
        chunk_seed = int.from_bytes(hashlib.sha256(what).digest()[:4], "big") >> 1
        with isolated(chunk_seed + offset):
            try:
                item = catalogue.dataset(entry.task, config, entry.level, chunk_seed)[offset]
                made = dataclasses.replace(entry, item=item)
                written(made, "")
            except Exception as error:  # noqa: BLE001  each task has its own ways of finding none
                reason = f"{type(error).__name__}: {error}"
            else:
                return made
    raise DataError(f"the task '{entry.task}' made no item in {_TRIES} tries: {reason}")
