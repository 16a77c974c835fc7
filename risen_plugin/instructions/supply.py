"""Supply a run with instructions: first those that are held out, then batches to train on.

A row that the model's context does not hold is passed over. With a curriculum the rows to
train on go through its pool; without one they come as the generators make them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_plugin.config import CurriculumConfig
from risen_plugin.contracts import Row
from risen_plugin.errors import DataError
from risen_plugin.instructions.held_out import (
    PATIENCE,
    HeldOut,
    Reserve,
    families_to_reserve,
    set_apart,
    state_of,
)
from risen_plugin.instructions.rows import (
    PromptLimit,
    TooLong,
    check_by_rewards,
    check_columns,
    check_strata,
    derived_seed,
    draw,
    key_of,
    rows_to_ask_for,
)
from risen_plugin.plugins.offers import Built
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.calling import NamedReward

if TYPE_CHECKING:
    from risen_plugin.instructions.curriculum import Pool

_log = logging.getLogger("risen_plugin")
_START: Mapping[str, Any] = {"tick": 0, "seq": 0}
_FILL_AT_ONCE = 4096  # rows that go into the pool together


class Instructions:
    """Draws rows from the configuration's generators, first the held-out ones, then to train on.

    :param held_out: the generator of the rows that are measured on; it may be the same one.
    :param rewards: every reward that scores answers; they say which rows they can score.
    :param seed: of all draws.
    :param curriculum: how to choose from a pool; None takes the generator's rows as they come.
    :param reserve: families that are never trained on; see ``Reserve`` in ``families``.
    :ivar held_out: the rows that were set apart.
    :ivar too_long: the rows that the model's context does not hold.
    """

    def __init__(
        self,
        generator: Built,
        held_out: Built,
        rewards: Sequence[NamedReward],
        seed: int,
        *,
        curriculum: CurriculumConfig | None = None,
        reserve: Reserve = 0,
    ) -> None:
        self.generator = generator
        self.measured_by = held_out
        self.rewards = rewards
        self.seed = seed
        self.curriculum = curriculum
        self.reserve = reserve
        self.held_out = HeldOut()
        self.draws = 0
        self.drawn = 0
        self.too_long = TooLong()
        self._limit: PromptLimit | None = None
        self._has_pool = curriculum is not None
        self._pool: Pool | None = None
        self._path: Path | None = None
        self._position: Mapping[str, Any] = _START

    def begin(self, *, limit: PromptLimit | None = None, draws: bool = True) -> None:
        """Begin a run.

        :param limit: most tokens that a prompt may have; None skips the check.
        :param draws: whether this process draws; of several, the main one does for all.
        """
        self.close_pool()
        self.too_long = TooLong()
        self._limit = limit
        self._has_pool = draws and self.curriculum is not None

    def set_apart(
        self, guard_rows: int, report_rows: int, *, as_there_are: bool = False
    ) -> HeldOut:
        """Set held-out instructions apart, and the families that are never trained on.

        :param as_there_are: whether to take fewer of a supply that has fewer, a quarter of it.

        :raises DataError: if there are too few different ones.
        :raises ConfigError: if a reserved family is not among them, or every one is reserved.
        """
        state = state_of(self.measured_by)
        reserved: frozenset[str] = frozenset()
        if self.reserve or (self.reserve is None and report_rows):
            reserved = families_to_reserve(self.measured_by, self.reserve, self.seed)
        try:
            self._set_apart(guard_rows, report_rows, reserved, as_there_are)
        except DataError:
            if self.reserve is not None or not reserved:
                raise
            if state is not None:  # too small a supply to spare a family that nobody named
                self.measured_by.value.load_state_dict(state)
            self._set_apart(guard_rows, report_rows, frozenset(), as_there_are)
        return self.held_out

    def _set_apart(
        self, guard_rows: int, report_rows: int, reserved: frozenset[str], as_there_are: bool
    ) -> None:
        try:
            self.held_out = set_apart(
                self.measured_by,
                guard_rows,
                report_rows,
                reserved=reserved,
                seed=self.seed,
                fit=partial(self._fit, label=self.measured_by.label),
                check=self._checked,
                as_there_are=as_there_are,
            )
        except DataError as error:
            if not self.too_long.count:
                raise
            raise DataError(f"{error}. It also made {self.too_long.said()}") from error
        if self.measured_by is self.generator:
            self.drawn = self.held_out.drawn  # an ordered supply goes on after the rows set apart
        if self.curriculum is not None:
            rows = [*self.held_out.guard, *self.held_out.report]
            check_strata(self.curriculum, rows, self.measured_by.label)
        self.next(1, {}, peek=True)

    def take_over(self, held_out: HeldOut) -> None:
        """Measure on the rows that the main process has set apart."""
        self.held_out = held_out

    def next(
        self,
        count: int,
        pass_rates: Mapping[str, float],
        *,
        longest: int | None = None,
        peek: bool = False,
        **context: Any,
    ) -> list[Row]:
        """``count`` rows to train on, none of them held out.

        :param longest: most tokens of a prompt in this phase, where it sets its own.
        :param peek: whether to leave everything as it was.
        :param context: more of it for the generator, such as ``generate``.
        :raises DataError: if nothing is left beside the held-out instructions.
        """
        draws, drawn, too_long = self.draws, self.drawn, self.too_long.count
        state = state_of(self.generator) if peek else None
        pool = None if peek else self.pool
        if pool is not None:
            rows = self._from_pool(pool, count, longest, pass_rates, context)
        else:
            rows = self._fresh(count, longest, pass_rates, context)
        if peek:
            self.draws, self.drawn, self.too_long.count = draws, drawn, too_long
            if state is not None:
                self.generator.value.load_state_dict(state)
        while len(rows) < count:  # a small supply is gone through again
            rows += rows[: count - len(rows)]
        return self._checked(rows[:count], self.generator.label)

    def _fresh(
        self,
        count: int,
        longest: int | None,
        pass_rates: Mapping[str, float],
        context: Mapping[str, Any],
    ) -> list[Row]:
        """At least one and at most about ``count`` rows of the generator, none of them held out."""
        reserved = self.held_out.reserved
        admitted: list[Row] = []
        fruitless = 0
        while len(admitted) < count and fruitless < PATIENCE:
            rows = draw(
                self.generator,
                rows_to_ask_for(count - len(admitted), fruitless),
                derived_seed(self.seed, "train", self.draws),
                pass_rates=dict(pass_rates),
                start=self.drawn,
                run_seed=self.seed,
                **({"reserved": sorted(reserved)} if reserved else {}),
                **context,
            )
            self.draws += 1
            self.drawn += len(rows)
            fit = self._fit([row for row in rows if self.held_out.admits(row)], longest)
            admitted += fit
            fruitless = 0 if fit else fruitless + 1
        if not admitted and self.too_long.count:
            raise DataError(f"{self.generator.label} made {self.too_long.said()}")
        if not admitted:
            raise DataError(
                f"{self.generator.label} offers no instruction beside the "
                f"{len(self.held_out)} that are held out; lower guard.rows and "
                "guard.report_rows, or give more instructions"
            )
        return admitted

    def _fit(
        self, rows: Sequence[Row], longest: int | None = None, *, label: str | None = None
    ) -> list[Row]:
        """The rows that the context holds; the first time that one is too long, say so."""
        limit, before = self._limit, self.too_long.count
        if limit is not None and longest is not None:
            limit = replace(limit, longest=longest)
        fit = self.too_long.pass_over(rows, limit, label or self.generator.label)
        if fit and self.too_long.count and not before:
            _log.warning(
                "instructions that are too long are passed over, such as %s. The generators "
                "'constraints' and 'evolve' leave them out by longest=, in characters",
                self.too_long.said(),
            )
        return fit

    def _checked(self, rows: Sequence[Row], label: str) -> list[Row]:
        """The rows, each with the same columns, once they are known to be usable."""
        check_columns(rows, self.rewards, label)
        check_by_rewards(rows, self.rewards, label)
        columns = {name for row in rows for name in row}
        return [{name: row.get(name) for name in sorted(columns)} for row in rows]

    # The pool ---------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool | None:
        """The curriculum's pool, opened at its last position; None without a curriculum."""
        if self._pool is None and self.curriculum is not None and self._has_pool:
            self._pool = self._open(self.curriculum, self._path)
            self._pool.load_state_dict(self._position)
        return self._pool

    def _open(self, curriculum: CurriculumConfig, path: Path | None) -> Pool:
        from risen_plugin.instructions.curriculum import Pool  # numpy and sqlite, where configured

        return Pool(curriculum, self.seed, key_of, path, admits=self._admits)

    def store_pool(self, path: Path, original: Path | None = None) -> None:
        """Store the pool in a file from now on, as the state last loaded left it.

        :param original: a pool to copy where the state needs one and ``path`` does not exist: that
            of the run whose checkpoint is resumed into another folder.
        :raises RecordError: if the file cannot be used, or is not the pool of that state.
        """
        self.close_pool()
        if self.curriculum is None or not self._has_pool:
            return
        self._path = path
        if self._position["seq"] and not path.exists() and original and original.exists():
            pool = self._open(self.curriculum, path)
            pool.store.copy_from(original)
            pool.close()
        assert self.pool is not None

    def close_pool(self) -> None:
        """Write out and close the pool; it is opened again when it is needed."""
        if self._pool is not None:
            self._position = self._pool.state_dict()
            self._pool.close()
            self._pool = None

    def take(self, batch: Batch) -> None:
        """Count a generation batch in the pool: its verdicts, and which groups lack variance."""
        if self.pool is not None:
            keys = [key_of(prompt) for prompt in batch.prompts]
            self.pool.count_answers(keys, batch.verdicts, batch.totals, batch.completions)

    def count_measured(self, passed: Sequence[bool | None]) -> None:
        """Count one answer to each of the guard's rows, from before a phase, in the pool.

        They change the pass rates of groups alone: the rows are not trained on.
        """
        if self.pool is not None:
            self.pool.count_measured(self.held_out.guard[: len(passed)], passed)

    def begin_figures(self, counts: Mapping[str, int] | None = None) -> None:
        """Count anew for the figures of a phase, or go on from ``counts``."""
        if self.pool is not None:
            self.pool.counts.clear()
            self.pool.counts.update(counts or {})

    def counts(self) -> dict[str, int]:
        """The counts since :meth:`begin_figures`, to go on from."""
        return {} if self.pool is None else dict(self.pool.counts)

    def figures(self) -> Mapping[str, float]:
        """The pool's figures since :meth:`begin_figures`, and how many rows were too long so far.

        Each where there are any.
        """
        passed_over = {"too_long": float(self.too_long.count)} if self.too_long.count else {}
        if self.pool is None:
            return passed_over
        pool = self.pool.figures()
        return {**passed_over, **{f"curriculum/{name}": value for name, value in pool.items()}}

    def _admits(self, row: Row) -> bool:
        return self.held_out.admits(row)

    def _from_pool(
        self,
        pool: Pool,
        count: int,
        longest: int | None,
        pass_rates: Mapping[str, float],
        context: Mapping[str, Any],
    ) -> list[Row]:
        wanted = 0
        if not len(pool):
            wanted = pool.config.initial
        elif pool.tick % pool.config.refill_every == 0:
            wanted = pool.config.refill
        context = {
            **context,
            "pool_rates": dict(pool.rates()),
            "level_rates": dict(pool.level_rates()),
        }
        while wanted > 0:
            asked = min(wanted, _FILL_AT_ONCE)
            pool.add(self._fresh(asked, longest, pass_rates, context))
            wanted -= asked
        rows = self._fit(pool.draw(count), longest)
        if not rows:
            raise DataError(f"{self.generator.label} made {self.too_long.said()}")
        return rows

    # Across checkpoints -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"draws": self.draws, "drawn": self.drawn}
        if self.curriculum is not None:
            state["pool"] = dict(self._position if self._pool is None else self._pool.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.draws = state["draws"]
        self.drawn = state["drawn"]
        self.close_pool()
        self._position = state.get("pool", _START)
