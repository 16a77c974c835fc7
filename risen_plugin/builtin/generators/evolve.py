"""The generator ``evolve``: instructions that grow with the model that is trained on them.

``difficulty`` decides by the pass rates; this module holds the state.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from risen_plugin.builtin.generators.adding import fitting, question_of, stated_constraints
from risen_plugin.builtin.generators.constrain import Constraints, constraints_of, first_valid
from risen_plugin.builtin.generators.difficulty import (
    Band,
    Family,
    adjusted,
    brought_back,
    is_evidence,
    next_level,
    sampled,
    still_rises,
    weight_of,
)
from risen_plugin.constraints import KNOWN, Constraint, parse
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError
from risen_plugin.instructions.fitting import amounts_suit
from risen_plugin.instructions.validity import FilterReport, Validity


@dataclass
class Evolve:
    """Prompts with constraints that become more and tighter as answers pass, and the reverse.

    Follows the pass rates of the run: ``pass_rates`` by family (``pool_rates`` with a curriculum)
    and ``level_rates`` by number of constraints. Answers that could not be judged do not count. A
    family of which nothing passes even at its easiest is retired. No instruction comes twice,
    resumed runs included; when all have been made there are fewer rows.

    :param constraints: the options of the generator ``constraints``: where the prompts come from,
        which constraints may be added, and from how many (``minimum``) to how many (``maximum``).
    :param low: the pass rate below which instructions become easier.
    :param high: the pass rate above which they become harder.
    :param step: how far one change of a pass rate moves a family's kwargs, between 0 and 1.
    :param patience: instructions of a family at its easiest, none of which passed, until it is
        retired.
    :param rounds: the most phases during which difficulty changes. Where all answers pass, the
        last of them begins with ``maximum`` constraints.
    :param least_gain: rise of held-out adherence from phase to phase that counts; without one,
        difficulty stays as it is from then on. An adherence of 1 cannot rise and counts as one.
    """

    constraints: Mapping[str, Any] | Constraints
    low: float = 0.2
    high: float = 0.7
    step: float = 0.125
    patience: int = 64
    rounds: int = 3
    least_gain: float = 0.0
    _made: int = field(default=0, init=False, repr=False, compare=False)
    _level: int = field(default=0, init=False, repr=False, compare=False)
    _level_rate: Any = field(default=None, init=False, repr=False, compare=False)
    _rounds_seen: int = field(default=0, init=False, repr=False, compare=False)
    _families: Mapping[str, Family] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _since: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ConfigError(
                f"low must be below high, both from 0 to 1, not {self.low} and {self.high}"
            )
        if not 0 < self.step <= 1:
            raise ConfigError(f"step must be above 0 and at most 1, not {self.step}")
        for name in ("patience", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        self._level = self.base.minimum

    def __call__(self, *, count: int, seed: int, **context: Any) -> Iterator[Row]:
        """``count`` rows, as hard as the pass rates allow.

        :raises DataError: as ``constraints``.
        """
        choices = self.base.choices(context.get("reserved", ()))
        self._follow(choices, context)
        seed = context.get("run_seed", seed)
        active = [id_ for id_ in choices if not self._families[KNOWN[id_].family()].retired]
        make = functools.partial(self._evolved, choices=active)
        for _ in range(count):
            what = f"evolve {seed} {self._made}"
            [row] = self.base.source(count=1, seed=seed, start=self._made)
            made = first_valid(self.valid, self.base.source.supply, row, what, make)
            if made is None:
                return
            self._made += 1
            self._since.update({KNOWN[id_].family() for id_ in made["instruction_id_list"]})
            yield made

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row has beside ``prompt``, as far as the first rows show."""
        return self.base.columns

    @property
    def level(self) -> int:
        """The number of constraints that are asked for now."""
        return self._level

    @property
    def families(self) -> Mapping[str, Family]:
        """The difficulty and pass rate of each family so far."""
        return dict(self._families)

    def report(self) -> FilterReport:
        """Counts of the dropped instructions, by reason."""
        return self.valid.report

    @functools.cached_property
    def base(self) -> Constraints:
        """The generator ``constraints`` that prompts and constraints come from."""
        return constraints_of(self.constraints, "evolve")

    @functools.cached_property
    def valid(self) -> Validity:
        """The filter of every instruction, which remembers all that were made.

        :raises DataError: if an evaluation file cannot be read.
        """
        base = self.base
        return Validity(longest=base.longest, against=base.against, run=base.overlap)

    def _follow(self, choices: Sequence[str], context: Mapping[str, Any]) -> None:
        usable = sorted({KNOWN[id_].family() for id_ in choices})
        self._families = {**dict.fromkeys(usable, Family()), **self._families}
        adherence = list(context.get("held_out_adherence") or ())
        if not still_rises(adherence, self.rounds, self.least_gain):
            return
        band = Band(self.low, self.high, self.step, self.patience)
        is_new = len(adherence) > self._rounds_seen
        self._rounds_seen = max(self._rounds_seen, len(adherence))
        rates = {**context.get("pass_rates", {}), **context.get("pool_rates", {})}
        families = {name: self._families[name] for name in usable}
        for name in [name for name in usable if name in rates]:
            made = self._since.pop(name, 0)
            families[name] = adjusted(families[name], rates[name], made, band, is_new)
        self._families = {**self._families, **brought_back(families)}
        level_rates = context.get("level_rates") or {}
        rounds_left = self.rounds - len(adherence)
        self._follow_levels(rates, level_rates, band, rounds_left, is_new=is_new)

    def _follow_levels(
        self,
        rates: Mapping[str, Any],
        level_rates: Mapping[Any, Any],
        band: Band,
        rounds_left: int,
        *,
        is_new: bool,
    ) -> None:
        active = {name: f for name, f in self._families.items() if not f.retired}
        if level_rates:
            rate = level_rates.get(str(self._level), level_rates.get(self._level))
        else:
            seen = [float(rates[name]) for name in active if is_evidence(rates.get(name))]
            rate = sum(seen) / len(seen) if seen else None
        if not is_evidence(rate) or (rate == self._level_rate and not is_new):  # no new evidence
            return
        self._level_rate = rate
        measured = [f.tightness for f in active.values() if f.rate is not None]
        tightness = sum(measured) / max(1, len(measured))
        limits = self.base.minimum, self.base.maximum
        self._level = next_level(
            self._level, rate, tightness, limits, band, rounds_left=rounds_left
        )

    def _evolved(self, row: Row, rng: random.Random, choices: Sequence[str]) -> Row | None:
        query = question_of(row)
        task = self.base.task(query)

        def make(id_: str) -> Constraint:
            def suits(kwargs: Mapping[str, Any]) -> bool:
                return task is None or amounts_suit([parse(id_, kwargs)], task)

            tightness = self._family(id_).tightness
            return parse(id_, sampled(KNOWN[id_], rng, query, tightness, suits))

        added = fitting(
            rng,
            choices,
            self._level,
            stated=stated_constraints(row),
            task=task,
            make=make,
            weight=self._weight,
            named=self.base.is_named,
        )
        return self.base.with_added(row, added, rng)

    def _family(self, id_: str) -> Family:
        return self._families[KNOWN[id_].family()]

    def _weight(self, id_: str) -> float:
        return weight_of(self._family(id_).rate)

    def state_dict(self) -> dict[str, Any]:
        """The instructions made so far, and their difficulty, as JSON values."""
        return {
            "made": self._made,
            "level": self._level,
            "level_rate": self._level_rate,
            "rounds_seen": self._rounds_seen,
            "families": {name: asdict(family) for name, family in self._families.items()},
            "since": dict(self._since),
            "valid": self.valid.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self._made = state["made"]
        self._level = state["level"]
        self._level_rate = state["level_rate"]
        self._rounds_seen = state.get("rounds_seen", 0)
        self._families = {name: Family(**values) for name, values in state["families"].items()}
        self._since = Counter(state["since"])
        self.valid.load_state_dict(state["valid"])
