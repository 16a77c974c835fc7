"""The generator ``constraints``: the user's own prompts, with constraints that code can check.

Unless it drops duplicates it is a pure function of its options and the arguments, like the
generator ``jsonl`` that it takes its prompts from.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from risen_plugin.builtin.generators.adding import (
    ADDED_COLUMNS,
    Position,
    agreeing,
    chosen_ids,
    constrained,
    fitting,
    question_of,
    stated_constraints,
)
from risen_plugin.builtin.generators.forms import Form
from risen_plugin.builtin.generators.jsonl import Jsonl, one_source
from risen_plugin.builtin.generators.supply import Supply, Unusable, check_form
from risen_plugin.constraints import KNOWN, Constraint, parse
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.instructions.fitting import Task, task_of
from risen_plugin.instructions.validity import FilterReport, Validity
from risen_plugin.plugins.options import build

_ANOTHER_PROMPT_AFTER = 8  # choices of constraints for one prompt
_PATIENCE = 400  # instructions in a row that are not valid, before giving up
_NOTHING_FITS = "no constraint fits"


@dataclass(frozen=True)
class Constraints:
    """The user's own prompts, each with verifiable constraints added.

    Takes its prompts as ``jsonl`` does, or from ``prompts``. Rows get ``instruction_id_list`` and
    ``kwargs`` as IFEval writes them, ``family`` (of the first constraint added), ``level`` (how
    many constraints it has) and ``query`` (the question without them); other columns stay.
    Constraints that a row states already stay, and those added agree with them. An
    instruction that is not valid is dropped, counted in ``report()`` and made anew.

    :param path: a file or saved dataset, as for ``jsonl``.
    :param dataset: a dataset, as for ``jsonl``.
    :param split: the split of a dataset.
    :param prompt: the column with the prompt; in a chat the last message of the user is added to.
    :param append: a column whose text belongs to the query, such as ``instances.0.input``.
    :param rows: the rows themselves.
    :param prompts: the prompts themselves, in place of rows.
    :param form: how rows state their own constraints, as for ``jsonl``.
    :param unusable: what to do with rows of which no constraint can be checked, as for ``jsonl``.
    :param minimum: the fewest constraints to add.
    :param maximum: the most constraints to add; fewer where no more agree with one another.
    :param weights: how often each number from ``minimum`` to ``maximum`` is chosen, such as
        ``[1, 2, 4]``; without it all of them alike.
    :param ids: constraint ids to choose from; without it every id that goes with most questions:
        no fixed answers, no copies of the prompt and no other language.
    :param families: families to choose from; without it all.
    :param exclude_families: families never to use, so that they can be measured instead.
    :param position: whether constraints come ``after`` the query, ``before`` it, or on ``both``
        sides, by chance.
    :param chat: whether text prompts become chats of one message.
    :param longest: most characters of a prompt.
    :param against: evaluation files; a query that shares words with them is not used.
    :param overlap: so many words in a row that are also in such a file are too many.
    :param fit: whether constraints have to fit the task in the eyes of a reader, which is judged
        by its words: no limit of words on a list of ten, no case for code. A task that fewer than
        ``minimum`` fit is not used. False adds any that agree with one another, and so does None
        where ``ids`` are named, which says that they fit.
    :param distinct: whether no instruction comes twice, over all draws: the same query with equal
        constraints. When all have been made there are fewer rows.
    """

    path: str | None = None
    dataset: str | None = None
    split: str = "train"
    prompt: str = "prompt"
    append: str | None = None
    rows: Sequence[Mapping[str, Any]] | None = None
    prompts: Sequence[str] | None = None
    form: Form = "auto"
    unusable: Unusable = "error"
    minimum: int = 1
    maximum: int = 2
    weights: Sequence[float] | None = None
    ids: Sequence[str] | None = None
    families: Sequence[str] | None = None
    exclude_families: Sequence[str] = ()
    position: Position = "after"
    chat: bool = True
    longest: int | None = None
    against: Sequence[str] = ()
    overlap: int = 13
    distinct: bool = False
    fit: bool | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum:
            raise ConfigError(
                "minimum must be at least 1 and maximum not below it, "
                f"not {self.minimum} and {self.maximum}"
            )
        self._check_weights()
        if self.position not in ("after", "before", "both"):
            raise ConfigError(f"position must be after, before or both, not {self.position!r}")
        check_form(self.form, self.unusable)
        one_source(path=self.path, dataset=self.dataset, rows=self.rows, prompts=self.prompts)
        if isinstance(self.against, str):
            raise ConfigError(f"against is {self.against!r}; it is a list of evaluation files")
        Validity(longest=self.longest)
        most = len(agreeing(random.Random(0), self.choices(), self.minimum))
        if most < self.minimum:
            raise ConfigError(
                f"minimum is {self.minimum}, but no more than {most} of the ids agree with "
                "one another"
            )

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        steps = self.maximum - self.minimum + 1
        if len(self.weights) != steps:
            raise ConfigError(
                f"weights has {len(self.weights)} numbers; there are {steps} from minimum "
                f"{self.minimum} to maximum {self.maximum}"
            )
        if min(self.weights) < 0 or not sum(self.weights) > 0:
            raise ConfigError("weights must not be negative, and not all of them 0")

    def __call__(self, *, count: int, seed: int, start: int = 0, **context: Any) -> Iterator[Row]:
        """``count`` rows; families that the context names as ``reserved`` are not used.

        :raises DataError: as ``jsonl``, for stated constraints that are unknown or wrong, and when
            hardly any instruction is valid.
        """
        seed = context.get("run_seed", seed)
        choices = self.choices(context.get("reserved", ()))
        make = functools.partial(self.made, choices=choices)
        rows = self.source(count=count, seed=seed, start=start)
        for index, row in enumerate(rows, start):
            what = f"constraints {seed} {index}"
            made = first_valid(self.valid, self.source.supply, row, what, make)
            if made is None:
                return
            yield made

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row has beside ``prompt``, as far as the first rows show."""
        return tuple(dict.fromkeys((*self.source.columns, *ADDED_COLUMNS)))

    def report(self) -> FilterReport:
        """Counts of dropped instructions by reason; a query counts each time that it is drawn."""
        return self.valid.report

    def state_dict(self) -> dict[str, Any]:
        """The instructions made so far, if ``distinct``, and the report."""
        return self.valid.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.valid.load_state_dict(state)

    @functools.cached_property
    def source(self) -> Jsonl:
        """The generator that the prompts come from."""
        rows = self.rows
        if self.prompts is not None:
            rows = [{self.prompt: prompt} for prompt in self.prompts]
        return Jsonl(
            self.path,
            self.dataset,
            self.split,
            self.prompt,
            self.append,
            rows=rows,
            form=self.form,
            unusable=self.unusable,
        )

    @functools.cached_property
    def valid(self) -> Validity:
        """The filter that every instruction passes.

        :raises DataError: if an evaluation file cannot be read.
        """
        return Validity(
            longest=self.longest,
            against=self.against,
            run=self.overlap,
            distinct=self.distinct,
        )

    def choices(self, reserved: Sequence[str] = ()) -> list[str]:
        """The ids to choose from, without those of ``reserved`` families.

        :raises ConfigError: if none is left.
        """
        known = [name for name in reserved if any(name == c.family() for c in KNOWN.values())]
        return chosen_ids(self.ids, self.families, (*self.exclude_families, *known))

    def task(self, query: str) -> Task | None:
        """The task that constraints have to fit; None where they need not."""
        has_to = self.ids is None if self.fit is None else self.fit
        return task_of(query) if has_to else None

    @property
    def is_named(self) -> bool:
        """Whether the constraints to choose from were named."""
        return self.ids is not None or self.families is not None

    def made(self, row: Row, rng: random.Random, choices: Sequence[str]) -> Row | None:
        """``row`` with constraints of these ids added, as many as the options say.

        :returns: None if too few of them fit the task.
        """
        numbers = range(self.minimum, self.maximum + 1)
        wanted = (
            rng.randint(self.minimum, self.maximum)
            if self.weights is None
            else rng.choices(numbers, self.weights)[0]
        )
        query = question_of(row)
        stated = stated_constraints(row)
        added = fitting(
            rng,
            choices,
            wanted,
            stated=stated,
            task=self.task(query),
            make=lambda id_: parse(id_, KNOWN[id_].sample(rng, query)),
            named=self.is_named,
        )
        return self.with_added(row, added, rng)

    def with_added(self, row: Row, added: Sequence[Constraint], rng: random.Random) -> Row | None:
        """``row`` with these constraints; None if they are too few and it states none."""
        if len(added) < self.minimum and not row.get("instruction_id_list"):
            return None
        return constrained(row, added, rng, position=self.position, chat=self.chat)

    def __getstate__(self) -> dict[str, Any]:
        """The options alone."""
        return {k: v for k, v in vars(self).items() if k not in ("source", "valid")}


def first_valid(
    valid: Validity,
    supply: Supply,
    row: Row,
    what: str,
    make: Callable[[Row, random.Random], Row | None],
) -> Row | None:
    """The first instruction that ``make`` makes of ``row`` and that is ``valid``.

    Where ``row`` gives none, others of the ``supply`` take its place.

    :param what: the seed of all draws in here.
    :param make: None where no constraint fits the row.
    :returns: the instruction, which is remembered; None if only duplicates can be made.
    :raises DataError: if too many tries in a row are not valid, with the reasons.
    """
    fault, is_fit = None, True
    for attempt in range(_PATIENCE):
        rng = random.Random(what if attempt == 0 else f"{what} {attempt}")
        if not is_fit or (attempt and attempt % _ANOTHER_PROMPT_AFTER == 0):
            row = supply[rng.randrange(len(supply))]
        query = question_of(row)
        fault = valid.fault_of_query(query)
        is_fit = fault is None
        if is_fit:
            made = make(row, rng)
            fault = _NOTHING_FITS if made is None else valid.fault_of(made)
            if made is not None and fault is None:
                valid.remember(made)
                return made
            is_fit = made is not None
        valid.report.drop(str(fault), query)
    if fault == "duplicate":
        return None
    hint = "; fit: false adds any that agree" if fault == _NOTHING_FITS else ""
    raise DataError(f"{_PATIENCE} instructions in a row were not valid: {valid.report}{hint}")


def constraints_of(value: Mapping[str, Any] | Constraints, whose: str) -> Constraints:
    """The generator that ``value`` describes, for a generator built on it.

    :param whose: the name of that generator.
    :raises ConfigError: as :class:`Constraints` does, naming ``whose``.
    """
    if isinstance(value, Constraints):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{whose}: constraints must hold the options of the generator 'constraints', "
            f"not {value!r:.60}"
        )
    return cast(Constraints, build(Constraints, value, f"{whose}: constraints"))
