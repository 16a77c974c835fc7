"""The instructions known so far, and which of them to ask next.

Answered instructions are drawn by the worth of asking them again, fresh ones by the worth of their
stratum; a share of the draws explores. An instruction that gave no variance is passed over before
it costs a rollout, the more probably the more often that happened. The text of rows stays on
disk; memory holds a few numbers for each.
"""

from __future__ import annotations

import json
import random
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from risen_plugin.config import CurriculumConfig
from risen_plugin.contracts import Completion, Prompt, Row
from risen_plugin.instructions.curriculum.estimates import Strata, decay, skips, worth
from risen_plugin.instructions.curriculum.hindsight import relabelled
from risen_plugin.instructions.curriculum.store import Answered, Store
from risen_plugin.instructions.curriculum.weights import Weights

KeyOf = Callable[[Prompt], str]
_UNIT = 1 << 20  # a worth of 1 in the whole numbers of Weights
_SWEEP = 64  # answered instructions that are weighed anew after each batch, in turn
_TRIES = 200  # picks per row before a batch is filled with whatever is left
_MEASURED = 4  # answers that the one answer to a row outside the pool counts as
_SAME = 1e-6  # rewards that differ by less give no variance
_NO_VALUE = "-"


class Pool:
    """A pool of instructions.

    Its state follows from the journal in ``store`` up to a position: a draw changes nothing but its
    own number, and takes its randomness from that and the seed.

    :param key_of: the fingerprint of a prompt, by which an instruction is known.
    :param admits: whether a row may be trained on; others never enter.
    """

    def __init__(
        self,
        config: CurriculumConfig,
        seed: int,
        key_of: KeyOf,
        path: Path | None = None,
        *,
        admits: Callable[[Row], bool] = lambda row: True,
    ) -> None:
        self.config = config
        self.seed = seed
        self.key_of = key_of
        self.admits = admits
        self.store = Store(path)
        self.counts: Counter[str] = Counter()  # since the process began
        self._empty()

    def _empty(self) -> None:
        self.tick = 0
        self.seq = 0
        self.retired = 0
        self._stratum = array("i")  # of each instruction
        self._position = array("i")  # among its stratum's fresh ones; -1 - slot once answered
        self._fresh: list[array[int]] = []  # by stratum
        self._id = array("i")  # of each slot
        self._passed = array("f")
        self._failed = array("f")
        self._tick = array("i")  # when they were counted
        self._streak = array("H")  # visits without variance in a row
        self._is_retired = bytearray()
        self._weights = Weights()
        self._cursor = 0
        self.strata = Strata(self.config.half_life)
        self.levels = Strata(self.config.half_life)
        self._means = self.strata.means(0)
        self._open: dict[str, int] = {}  # drawn and not answered yet

    def __len__(self) -> int:
        return len(self._stratum)

    # Filling

    def add(self, rows: Sequence[Row], origin: Mapping[str, Any] | None = None) -> int:
        """Take in the rows that are not known yet, and return how many those were.

        :param origin: where they came from, if not from the generator.
        """
        self.seq += 1
        added = 0
        source = json.dumps(origin) if origin else ""
        for row in rows:
            if not self.admits(row):
                continue
            if len(self) >= self.config.largest:
                self.counts["refused"] += 1
                continue
            stratum = self._stratum_of(row)
            key = self.key_of(row["prompt"])
            if self.store.add_row(
                len(self), key, row, stratum=stratum, seq=self.seq, origin=source
            ):
                self._admit(stratum)
                added += 1
        self.store.commit()
        return added

    def _stratum_of(self, row: Row) -> int:
        path = tuple(_value(row, name) for name in self.config.strata)
        known = len(self.strata)
        number = self.strata.number_of(path)
        if len(self.strata) > known:
            self.store.add_stratum(number, path, self.seq)
        return number

    def _admit(self, stratum: int) -> None:
        while len(self._fresh) < len(self.strata):
            self._fresh.append(array("i"))
        self._position.append(len(self._fresh[stratum]))
        self._fresh[stratum].append(len(self._stratum))
        self._stratum.append(stratum)

    # Drawing

    def draw(self, count: int) -> list[Row]:
        """At most ``count`` different rows, by every answer that was counted until now."""
        self.tick += 1
        rng = random.Random(f"curriculum {self.seed} {self.tick}")
        self._means = self.strata.means(self.tick)
        sizes = np.array([len(fresh) for fresh in self._fresh])
        fresh = np.cumsum((sizes * self._fresh_worth()[: len(sizes)] * _UNIT).astype(np.int64))
        chosen: dict[int, None] = {}
        wanted = min(count, len(self) - self.retired)
        skips_left = self.config.most_skips * count
        for _ in range(_TRIES * count):
            if len(chosen) >= wanted:
                break
            explores = rng.random() < self.config.explore
            index = rng.randrange(len(self)) if explores else self._pick(rng, fresh)
            if index is None or index in chosen or self._is_out(index):
                continue
            if not explores and skips_left and self._is_skipped(rng, index):
                skips_left -= 1
                self.counts["skipped"] += 1
                continue
            chosen[index] = None
            self.counts["explored"] += explores
        start = rng.randrange(len(self)) if len(chosen) < wanted else 0
        for offset in range(len(self)):  # nothing worth asking is left: fill with the next ones
            if len(chosen) >= wanted:
                break
            index = (start + offset) % len(self)
            if not self._is_out(index):
                chosen.setdefault(index)
        self.counts["drawn"] += len(chosen)
        rows = self.store.rows(list(chosen))
        self._open = {
            self.key_of(row["prompt"]): index for row, index in zip(rows, chosen, strict=True)
        }
        return rows

    def _fresh_worth(self) -> Any:
        return self._worth(np.zeros_like(self._means), np.zeros_like(self._means), self._means)

    def _worth(self, passed: Any, failed: Any, mean: Any) -> Any:
        config = self.config
        return worth(
            passed,
            failed,
            mean,
            prior=config.prior,
            optimism=config.optimism,
            low=config.low,
            high=config.high,
            focus=config.focus,
        )

    def _pick(self, rng: random.Random, fresh: Any) -> int | None:
        """One instruction in proportion to its worth; None if it is worth less by now."""
        of_fresh = int(fresh[-1]) if len(fresh) else 0
        total = self._weights.total + of_fresh
        if not total:
            return rng.randrange(len(self))
        mark = rng.randrange(total)
        if mark < of_fresh:
            stratum = int(np.searchsorted(fresh, mark, side="right"))
            return self._fresh[stratum][rng.randrange(len(self._fresh[stratum]))]
        slot = self._weights.find(mark - of_fresh)
        # Weighed when it was answered; since then its stratum has moved and its answers have aged.
        if rng.random() * self._weights[slot] > self._weight(slot, self.tick):
            return None
        return self._id[slot]

    def _is_skipped(self, rng: random.Random, index: int) -> bool:
        position = self._position[index]
        streak = self._streak[-1 - position] if position < 0 else 0
        if not streak:
            return False
        config = self.config
        return rng.random() < skips(streak, base=config.skip_base, floor=config.skip_floor)

    def _is_out(self, index: int) -> bool:
        position = self._position[index]
        return position < 0 and bool(self._is_retired[-1 - position])

    # Counting answers

    def count_answers(
        self,
        keys: Sequence[str],
        passed: Sequence[bool | None],
        rewards: Sequence[float | None] | None = None,
        completions: Sequence[Completion] | None = None,
    ) -> None:
        """Count a batch of answers, one entry each; None is an answer that nobody judged.

        :param keys: of the prompts; those that were not drawn from here are left out.
        :param rewards: the reinforced sums; without them, whether the answers passed.
        :param completions: the answers themselves, which hindsight learns from.
        """
        groups: dict[int, list[int]] = {}
        for index, key in enumerate(keys):
            number = self._open.get(key)
            if number is None:
                number = self.store.number_of(key)
            if number is not None:
                groups.setdefault(number, []).append(index)
        results = [
            _group_result(number, group, passed, rewards) for number, group in groups.items()
        ]
        judged = [answer for answer in results if answer.passed + answer.failed]
        if not judged:
            return
        self.seq += 1
        self.store.add_answers(self.seq, self.tick, judged)
        for slot in self._count(judged, self.tick):
            streak = self._streak[slot]
            self.store.add_retired(self.seq, self._id[slot], f"{streak} visits without variance")
        self.store.commit()
        self.counts["groups"] += len(judged)
        self.counts["zero"] += sum(answer.zero for answer in judged)
        if self.config.hindsight and completions is not None:
            for answer in judged:
                if not answer.passed:
                    self._relabel(answer.id, [completions[i] for i in groups[answer.id]])

    def _relabel(self, number: int, completions: Sequence[Completion]) -> None:
        """Add the instruction that the best of these failed answers would have followed."""
        [row] = self.store.rows([number])
        made = relabelled(row, completions, random.Random(f"hindsight {self.seed} {self.seq}"))
        if made is not None:
            origin = {"hindsight_of": self.key_of(row["prompt"]), "tick": self.tick}
            self.counts["relabelled"] += self.add([made], origin)

    def count_measured(self, rows: Sequence[Row], passed: Sequence[bool | None]) -> None:
        """Count one answer to each of ``rows``, which stay outside the pool, in their strata."""
        tally: dict[int, list[bool]] = {}
        self.seq += 1
        for row, is_passed in zip(rows, passed, strict=True):
            if is_passed is not None:
                tally.setdefault(self._stratum_of(row), []).append(is_passed)
        answers = [
            Answered(
                -1 - stratum, sum(seen) * _MEASURED, (len(seen) - sum(seen)) * _MEASURED, False
            )
            for stratum, seen in tally.items()
        ]
        self.store.add_answers(self.seq, self.tick, answers)
        self._count(answers, self.tick)
        self.store.commit()

    def _count(self, answers: Sequence[Answered], tick: int) -> list[int]:
        """Count answers in memory; returns the slots that retire by them."""
        for answer in answers:
            stratum = -1 - answer.id if answer.id < 0 else self._stratum[answer.id]
            self.strata.count(stratum, answer.passed, answer.failed, tick)
            path = self.strata.paths[stratum]
            if "level" in self.config.strata[: len(path)]:
                level = path[self.config.strata.index("level")]
                self.levels.count(
                    self.levels.number_of((level,)), answer.passed, answer.failed, tick
                )
        self._means = self.strata.means(tick)
        retiring: list[int] = []
        for answer in answers:
            if answer.id < 0:
                continue
            slot = self._slot(answer.id, tick)
            before = decay(tick - self._tick[slot], self.config.half_life)
            self._passed[slot] = self._passed[slot] * before + answer.passed
            self._failed[slot] = self._failed[slot] * before + answer.failed
            self._tick[slot] = tick
            self._streak[slot] = min(self._streak[slot] + 1, 65535) if answer.zero else 0
            limit = self.config.retire_after
            if limit is not None and self._streak[slot] >= limit and not self._is_retired[slot]:
                self._is_retired[slot] = 1
                self.retired += 1
                retiring.append(slot)
            self._weigh(slot, tick)
        for _ in range(min(_SWEEP, len(self._id))):
            self._cursor = (self._cursor + 1) % len(self._id)
            self._weigh(self._cursor, tick)
        return retiring

    def _slot(self, index: int, tick: int) -> int:
        """The slot of an answered instruction's numbers; it stops being fresh."""
        position = self._position[index]
        if position < 0:
            return -1 - position
        fresh = self._fresh[self._stratum[index]]
        last = fresh.pop()
        if last != index:
            fresh[position] = last
            self._position[last] = position
        self._id.append(index)
        self._passed.append(0.0)
        self._failed.append(0.0)
        self._tick.append(tick)
        self._streak.append(0)
        self._is_retired.append(0)
        slot = self._weights.append()
        self._position[index] = -1 - slot
        return slot

    def _weigh(self, slot: int, tick: int) -> None:
        self._weights.put(slot, 0 if self._is_retired[slot] else self._weight(slot, tick))

    def _weight(self, slot: int, tick: int) -> int:
        before = decay(tick - self._tick[slot], self.config.half_life)
        mean = self._means[self._stratum[self._id[slot]]]
        value = self._worth(self._passed[slot] * before, self._failed[slot] * before, mean)
        return int(float(value) * _UNIT)

    # Estimates

    def rates(self) -> Mapping[str, float]:
        """The estimated pass rate of each family that has been answered."""
        return self.strata.rates(1, self.tick)

    def level_rates(self) -> Mapping[str, float]:
        """The estimated pass rate of each level that has been answered."""
        return self.levels.rates(1, self.tick)

    def rate_of(self, key: str) -> float:
        """The estimated pass rate of one instruction.

        :raises KeyError: if it is not in the pool.
        """
        number = self.store.number_of(key)
        if number is None:
            raise KeyError(key)
        mean = float(self.strata.means(self.tick)[self._stratum[number]])
        position = self._position[number]
        if position >= 0:
            return mean
        slot = -1 - position
        before = decay(self.tick - self._tick[slot], self.config.half_life)
        passed, failed = self._passed[slot] * before, self._failed[slot] * before
        return (passed + self.config.prior * mean) / (passed + failed + self.config.prior)

    def mean_rate(self) -> float:
        """The mean estimated pass rate, with that of its stratum for each instruction."""
        if not len(self):
            return 0.5
        sizes = np.bincount(np.frombuffer(self._stratum, np.int32), minlength=len(self.strata))
        return float(sizes @ self.strata.means(self.tick) / len(self))

    def figures(self) -> Mapping[str, float]:
        """The size of the pool, and its counts since they were last cleared, by name."""
        drawn, groups = max(1, self.counts["drawn"]), max(1, self.counts["groups"])
        return {
            "size": len(self),
            "answered": len(self._id),
            "retired": self.retired,
            "refused": self.counts["refused"],
            "relabelled": self.counts["relabelled"],
            "mean_rate": self.mean_rate(),
            "skipped": self.counts["skipped"],
            "explored_share": self.counts["explored"] / drawn,
            "zero_variance_share": self.counts["zero"] / groups,
        }

    def bytes_in_memory(self) -> int:
        """The memory for the instructions' numbers, without the database's cache."""
        whole = (self._stratum, self._position, self._id, self._tick, self._streak, *self._fresh)
        arrays: list[array[int] | array[float]] = [*whole, self._passed, self._failed]
        size = sum(values.itemsize * len(values) for values in arrays) + len(self._is_retired)
        return size + self._weights.bytes_in_memory()

    # Across checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The position in the journal, which is on disk when this returns."""
        self.store.commit()
        return {"tick": self.tick, "seq": self.seq}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a position in the journal; later entries are removed.

        :raises RecordError: if the journal does not reach so far.
        """
        self.store.cut(state["seq"])
        self._empty()
        for number, path in self.store.strata():
            if self.strata.number_of(path) != number:
                raise AssertionError(f"stratum {path} is not number {number}")
        strata = self.store.row_strata()
        row = next(strata, None)
        for seq, tick, answers in _batches(self.store):
            while row is not None and row[0] < seq:
                self._admit(row[1])
                row = next(strata, None)
            self._count(answers, tick)
        while row is not None:
            self._admit(row[1])
            row = next(strata, None)
        self.tick, self.seq = state["tick"], state["seq"]
        self._means = self.strata.means(self.tick)

    def close(self) -> None:
        self.store.commit()
        self.store.close()


def _batches(store: Store) -> Any:
    batch: list[Answered] = []
    at = (0, 0)
    for seq, tick, answer in store.answers():
        if batch and seq != at[0]:
            yield *at, batch
            batch = []
        at = (seq, tick)
        batch.append(answer)
    if batch:
        yield *at, batch


def _value(row: Row, name: str) -> str:
    """A row's value in a column of the strata; without a level, its number of constraints."""
    value = row.get(name)
    if value is None and name == "level":
        value = len(row.get("instruction_id_list") or ())
    if isinstance(value, list | tuple):
        value = "+".join(sorted(map(str, value)))
    return _NO_VALUE if value in (None, "") else str(value)


def _group_result(
    number: int,
    group: Sequence[int],
    passed: Sequence[bool | None],
    rewards: Sequence[float | None] | None,
) -> Answered:
    judged = [passed[index] for index in group if passed[index] is not None]
    values = [float(value) for value in judged if value is not None]
    if rewards is not None:
        values = [value for index in group if (value := rewards[index]) is not None]
    flat = len(values) > 1 and max(values) - min(values) <= _SAME
    return Answered(number, sum(map(bool, judged)), len(judged) - sum(map(bool, judged)), flat)
