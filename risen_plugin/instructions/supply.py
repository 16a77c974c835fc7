"""Supply a run with instructions: held-out ones set apart first, then batches to train on.

What the guard decides by, what is reported and what is trained on are three disjoint sets of
prompts. Every row is checked against the model's context before it is used. With a curriculum the
rows to train on go through its pool; without one they come as the generators make them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.config import CurriculumConfig
from risen_plugin.contracts import Row, Stateful, text_of
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.instructions.curriculum import Pool
from risen_plugin.instructions.families import Reserve, choose_reserved, families_of, told
from risen_plugin.instructions.rows import check_columns, draw
from risen_plugin.plugins.offers import Built
from risen_plugin.rewards.batch import Batch
from risen_plugin.run.assembly import Parts

TokenCount = Callable[[Any], int]
_START: Mapping[str, Any] = {"tick": 0, "seq": 0}
_PATIENCE = 20  # draws in a row without a single new instruction before giving up
_USUAL_STRATA = {"family", "level", "instruction_id_list"}
_FAMILIES_SEEN_IN = 512  # rows in which the families are looked for
_FILL_AT_ONCE = 4096  # rows that go into the pool together
_MOST_AT_ONCE = 256  # rows asked for when few of them are new


def derived_seed(seed: int, *what: object) -> int:
    """A seed that depends on ``seed`` and on what it is for; stable across processes."""
    text = json.dumps([seed, *map(str, what)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def key_of(prompt: Any) -> str:
    """A short fingerprint of a prompt, to tell sets of instructions apart."""
    text = json.dumps(prompt, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _ask(lacking: int, fruitless: int) -> int:
    """Rows to ask for: what is lacking, and more after each draw that brought nothing new.

    A supply that draws at random may have what is wanted, but seldom.
    """
    return max(lacking, min(lacking << fruitless, _MOST_AT_ONCE))


class Instructions:
    """Draws rows from the configuration's generators.

    :param parts: the assembled configuration.
    :param seed: of all draws.
    :param count_tokens: tokens of a prompt as the model will see it; None skips the check.
    :param longest: most tokens that a prompt may have.
    :param curriculum: how to choose from a pool; None takes the generator's rows as they come.
    :param reserve: families that are never trained on; see ``Reserve`` in ``families``.
    """

    def __init__(
        self,
        parts: Parts,
        seed: int,
        *,
        count_tokens: TokenCount | None = None,
        longest: int | None = None,
        curriculum: CurriculumConfig | None = None,
        reserve: Reserve = 0,
    ) -> None:
        self.parts = parts
        self.seed = seed
        self.count_tokens = count_tokens
        self.longest = longest
        self.guard: list[Row] = []
        self.report: list[Row] = []
        self.unseen: list[Row] = []
        self.curriculum = curriculum
        self.reserve = reserve
        self.reserved: frozenset[str] = frozenset()
        self.keeps_pool = True
        """Whether this process draws; of several, the main one does, and tells the others."""
        self._pool: Pool | None = None
        self._place: Path | None = None
        self._position: Mapping[str, Any] = _START
        self.draws = 0
        self.drawn = 0
        self.context: dict[str, Any] = {}
        """What the run adds to the context of a draw to train on, such as ``generate``."""
        self._held_out: set[str] = set()

    def set_apart(self, guard_rows: int, report_rows: int) -> None:
        """Set held-out instructions apart, and the families that are never trained on.

        The guard's and the reported rows are of families that are trained on; as many as
        ``report_rows`` more are of reserved ones, where there are any.

        :raises DataError: if there are too few different ones.
        :raises ConfigError: if a reserved family is not among them, or every one is reserved.
        """
        part = self.parts.held_out
        state = self._state_of(part)
        asked = self.reserve or (self.reserve is None and report_rows)
        reserved = self._families_to_reserve(part) if asked else frozenset()
        try:
            self._set_apart(guard_rows, report_rows, reserved)
        except DataError:
            if self.reserve is not None or not reserved:
                raise
            if state is not None:  # too small a supply to spare a family that nobody named
                part.value.load_state_dict(state)
            self._set_apart(guard_rows, report_rows, frozenset())

    def _set_apart(self, guard_rows: int, report_rows: int, reserved: frozenset[str]) -> None:
        wanted = guard_rows + report_rows
        part = self.parts.held_out
        self.reserved = reserved
        rows, unseen = self._different(part, wanted, report_rows if reserved else 0)
        if len(rows) < wanted or (reserved and not unseen):
            kind = f" of the reserved {told(reserved)}" if len(rows) >= wanted else ""
            raise DataError(
                f"{part.label} offers {len(unseen) if kind else len(rows)} different instructions"
                f"{kind}, but guard.rows and guard.report_rows set "
                f"{report_rows if kind else wanted} apart; lower them, or give more instructions"
            )
        self._check_strata(rows, part.label)
        self.guard, self.report = rows[:guard_rows], rows[guard_rows:]
        self.unseen = unseen
        self._held_out = {key_of(row["prompt"]) for row in (*rows, *unseen)}
        self.next(1, {}, peek=True)

    def _families_to_reserve(self, part: Built) -> frozenset[str]:
        state = self._state_of(part)
        seed = derived_seed(self.seed, "families")
        rows = draw(part, _FAMILIES_SEEN_IN, seed, start=0, run_seed=self.seed)
        if state is not None:
            part.value.load_state_dict(state)
        rng = random.Random(derived_seed(self.seed, "reserve"))
        return choose_reserved(self.reserve, rows, rng, part.label)

    def held_out(self) -> dict[str, Any]:
        """What was set apart, for :meth:`take_over`."""
        return {
            name: getattr(self, name)
            for name in ("guard", "report", "unseen", "reserved", "_held_out")
        }

    def take_over(self, held_out: Mapping[str, Any]) -> None:
        """Measure on what the main process has set apart."""
        for name, value in held_out.items():
            setattr(self, name, value)

    def next(self, count: int, pass_rates: Mapping[str, float], *, peek: bool = False) -> list[Row]:
        """``count`` rows to train on, none of them held out.

        :raises DataError: if nothing is left beside the held-out instructions.
        """
        draws, drawn = self.draws, self.drawn
        state = self._state_of(self.parts.generator) if peek else None
        pool = None if peek else self.pool
        if pool is not None:
            found = self._from_pool(pool, count, pass_rates)
        else:
            found = self._fresh(count, pass_rates, {})
        if peek:
            self.draws, self.drawn = draws, drawn
            if state is not None:
                self.parts.generator.value.load_state_dict(state)
        while len(found) < count:  # a small supply is gone through again
            found += found[: count - len(found)]
        return self._checked(found[:count], self.parts.generator.label)

    def _fresh(
        self, count: int, pass_rates: Mapping[str, float], context: Mapping[str, Any]
    ) -> list[Row]:
        """At least one and at most about ``count`` rows of the generator, none of them held out."""
        found: list[Row] = []
        fruitless = 0
        while len(found) < count and fruitless < _PATIENCE:
            rows = draw(
                self.parts.generator,
                _ask(count - len(found), fruitless),
                derived_seed(self.seed, "train", self.draws),
                pass_rates=dict(pass_rates),
                start=self.drawn,
                run_seed=self.seed,
                **({"reserved": sorted(self.reserved)} if self.reserved else {}),
                **self.context,
                **context,
            )
            self.draws += 1
            self.drawn += len(rows)
            fit = [row for row in rows if self._is_to_train_on(row)]
            found += fit
            fruitless = 0 if fit else fruitless + 1
        if not found:
            raise DataError(
                f"{self.parts.generator.label} offers no instruction beside the "
                f"{len(self._held_out)} that are held out; lower guard.rows and "
                "guard.report_rows, or give more instructions"
            )
        return found

    def is_held_out(self, prompt: Any) -> bool:
        """Whether a prompt is measured on, and so never trained on."""
        return key_of(prompt) in self._held_out

    def _is_to_train_on(self, row: Row) -> bool:
        return not self.is_held_out(row["prompt"]) and self.reserved.isdisjoint(families_of(row))

    # The pool ---------------------------------------------------------------------------------

    @property
    def pool(self) -> Pool | None:
        """The curriculum's pool, opened where it was left; None without a curriculum."""
        if self._pool is None and self.curriculum is not None and self.keeps_pool:
            self._pool = Pool(
                self.curriculum, self.seed, key_of, self._place, admits=self._is_to_train_on
            )
            self._pool.load_state_dict(self._position)
        return self._pool

    def keep_pool(self, path: Path, otherwise: Path | None = None) -> None:
        """Keep the pool in a file from now on, as the state last loaded left it.

        :param otherwise: a pool to copy where the state needs one and ``path`` is not there: that
            of the run whose checkpoint is resumed into another folder.
        :raises RecordError: if the file cannot be used, or is not the pool of that state.
        """
        self.close_pool()
        if self.curriculum is None or not self.keeps_pool:
            return
        self._place = path
        if self._position["seq"] and not path.exists() and otherwise and otherwise.exists():
            pool = Pool(self.curriculum, self.seed, key_of, path)
            pool.store.copy_from(otherwise)
            pool.close()
        assert self.pool is not None

    def close_pool(self) -> None:
        """Write out and close the pool; it is opened again where it is needed."""
        if self._pool is not None:
            self._position = self._pool.state_dict()
            self._pool.close()
            self._pool = None

    def take(self, batch: Batch) -> None:
        """Count a generation batch in the pool: its verdicts, and which groups lack variance."""
        if self.pool is not None:
            keys = [key_of(prompt) for prompt in batch.prompts]
            self.pool.answered(keys, batch.verdicts, batch.totals, batch.completions)

    def measured(self, passed: Sequence[bool | None]) -> None:
        """Tell the pool how the guard's rows were followed before a phase, one answer to each.

        Only the pass rates of their groups are kept: the rows themselves are not trained on.
        """
        if self.pool is not None:
            self.pool.measured(self.guard, passed)

    def begin_figures(self, counts: Mapping[str, int] | None = None) -> None:
        """Count anew for the figures of a phase, or go on from ``counts``."""
        if self.pool is not None:
            self.pool.counts.clear()
            self.pool.counts.update(counts or {})

    def counts(self) -> dict[str, int]:
        """What was counted since :meth:`begin_figures`, to go on from."""
        return {} if self.pool is None else dict(self.pool.counts)

    def figures(self) -> Mapping[str, float]:
        """What the pool did since :meth:`begin_figures`; nothing without a curriculum."""
        if self.pool is None:
            return {}
        return {f"curriculum/{name}": value for name, value in self.pool.figures().items()}

    def _from_pool(self, pool: Pool, count: int, pass_rates: Mapping[str, float]) -> list[Row]:
        wanted = 0
        if not len(pool):
            wanted = pool.config.initial
        elif pool.tick % pool.config.refill_every == 0:
            wanted = pool.config.refill
        context = {
            "pool_rates": dict(pool.rates()),
            "level_rates": dict(pool.level_rates()),
        }
        while wanted > 0:
            asked = min(wanted, _FILL_AT_ONCE)
            pool.add(self._fresh(asked, pass_rates, context))
            wanted -= asked
        return pool.draw(count)

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

    # Inside -----------------------------------------------------------------------------------

    def _state_of(self, part: Built) -> dict[str, Any] | None:
        return part.value.state_dict() if isinstance(part.value, Stateful) else None

    def _different(self, part: Built, wanted: int, unseen: int) -> tuple[list[Row], list[Row]]:
        """``wanted`` rows of the families that are trained on, and ``unseen`` reserved ones."""
        most = (wanted, unseen)
        kinds: tuple[dict[str, Row], dict[str, Row]] = ({}, {})
        start = attempt = fruitless = 0

        def lacking() -> int:
            return sum(max(0, n - len(rows)) for n, rows in zip(most, kinds, strict=True))

        while (before := lacking()) and fruitless < _PATIENCE:
            seed = derived_seed(self.seed, "held out", attempt)
            asked = _ask(before, fruitless)
            new = draw(part, asked, seed, start=start, run_seed=self.seed)
            start += len(new)
            attempt += 1
            for row in new:
                is_unseen = not self.reserved.isdisjoint(families_of(row))
                kinds[is_unseen].setdefault(key_of(row["prompt"]), row)
            fruitless = 0 if lacking() < before else fruitless + 1
        if part is self.parts.generator:
            self.drawn = start  # an ordered supply goes on after the rows set apart
        trained, reserved = (
            self._checked(list(rows.values())[:n], part.label)
            for n, rows in zip(most, kinds, strict=True)
        )
        return trained, reserved

    def _checked(self, rows: Sequence[Row], label: str) -> list[Row]:
        check_columns(rows, self.parts.asked, label)
        if self.count_tokens is not None and self.longest is not None:
            for row in rows:
                tokens = self.count_tokens(row["prompt"])
                if tokens > self.longest:
                    start = " ".join(text_of(row["prompt"]).split())[:60]
                    raise DataError(
                        f"{label} made a prompt of {tokens} tokens ({start!r}...); beside "
                        "grpo.max_completion_length this model's context leaves "
                        f"{self.longest}; shorten the prompt, or lower that"
                    )
        self._check_by_rewards(rows, label)
        columns = {name for row in rows for name in row}
        return [{name: row.get(name) for name in sorted(columns)} for row in rows]

    def _check_strata(self, rows: Sequence[Row], label: str) -> None:
        """Refuse a stratum that is a column of no row; those by default may be missing."""
        given = () if self.curriculum is None else self.curriculum.strata
        columns = {name for row in rows for name in row} - {"prompt"}
        for name in set(given) - columns - _USUAL_STRATA:
            raise ConfigError(
                f"curriculum.strata has '{name}', which is a column of no row of {label}"
                f"{near_miss(name, columns | _USUAL_STRATA) or '.'} They have: "
                f"{', '.join(sorted(columns)) or 'none'}"
            )

    def _check_by_rewards(self, rows: Sequence[Row], label: str) -> None:
        """Let the rewards that offer ``check_row`` refuse what they could not score."""
        for reward in self.parts.rewards:
            check: Callable[[Row], None] | None = getattr(reward.reward, "check_row", None)
            if check is None:
                continue
            for row in rows:
                try:
                    check(row)
                except DataError as error:
                    start = " ".join(text_of(row["prompt"]).split())[:60]
                    raise DataError(
                        f"{label} made a row ({start!r}...) that {reward.label} cannot score: "
                        f"{error}"
                    ) from error
