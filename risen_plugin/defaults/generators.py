"""The generators that come with risen-plugin: jsonl and constraints.

Pure functions of their options and the arguments: the same seed and ``start`` give the same rows,
so that a resumed run sees what an uninterrupted one sees.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.constraints import KNOWN, check_all, clash, parse
from risen_plugin.contracts import Row, text_of
from risen_plugin.defaults.sources import prompts_of, read
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.hookspecs import Register, hookimpl

OWN_COLUMNS = ("instruction_id_list", "kwargs", "family", "level")
_TRIES = 50  # random picks of compatible constraints before giving up


@dataclass(frozen=True)
class Jsonl:
    """Rows of a file or dataset, in one seeded order after another.

    Give one of ``path``, ``dataset`` and ``rows``. ``start`` in the context is the number of rows
    drawn before, and ``run_seed`` takes the place of the seed in making the order, so that the
    draws of a run follow one another through it.

    :param path: a file with one JSON object per line (``.json``: one list; ``.parquet``), or a
        folder that ``datasets`` saved.
    :param dataset: the name or folder of a dataset for ``datasets.load_dataset``.
    :param split: the split of a dataset.
    :param prompt: the column with the prompt, text or chat messages; it is called ``prompt`` in
        the rows. The other columns stay as they are.
    :param shuffle: False takes the rows in the order of the source.
    :param rows: the rows themselves.
    """

    path: str | None = None
    dataset: str | None = None
    split: str = "train"
    prompt: str = "prompt"
    shuffle: bool = True
    rows: Sequence[Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        _one_source(path=self.path, dataset=self.dataset, rows=self.rows)

    def __call__(self, *, count: int, seed: int, start: int = 0, **context: Any) -> Iterator[Row]:
        """``count`` rows.

        :raises DataError: if the source cannot be read, is empty or has a row without a prompt.
        """
        supply, seed = self._supply, context.get("run_seed", seed)
        for index in range(start, start + count):
            turn, place = divmod(index, len(supply))
            yield dict(supply[_order(len(supply), seed, turn)[place] if self.shuffle else place])

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row has beside ``prompt``.

        :raises DataError: as a call does.
        """
        first, *others = self._supply
        shared = [name for name in first if name != "prompt"]
        return tuple(name for name in shared if all(name in row for row in others))

    @functools.cached_property
    def _supply(self) -> list[Row]:
        supply = prompts_of(read(self.path, self.dataset, self.split, self.rows), self.prompt)
        if not supply:
            raise DataError(f"{self.path or self.dataset or 'rows'} holds no instructions")
        return supply

    def __getstate__(self) -> dict[str, Any]:
        """The options alone: what was read is read again where it is needed."""
        return {k: v for k, v in vars(self).items() if k not in ("columns", "_supply")}


@functools.lru_cache(maxsize=4)
def _order(size: int, seed: int, turn: int) -> Sequence[int]:
    """The order of the rows the ``turn``-th time round."""
    order = list(range(size))
    random.Random(f"order {seed} {turn}").shuffle(order)
    return order


@dataclass(frozen=True)
class Constraints:
    """The user's own prompts, each with verifiable constraints added after the query.

    Takes its prompts as ``jsonl`` does, or from ``prompts``. Rows get ``instruction_id_list`` and
    ``kwargs`` as IFEval writes them, ``family`` (of the first constraint added) and ``level`` (how
    many constraints it has), and keep their other columns. Constraints that a row states already
    are kept, and those added agree with them.

    :param path: a file or saved dataset, as for ``jsonl``.
    :param dataset: a dataset, as for ``jsonl``.
    :param split: the split of a dataset.
    :param prompt: the column with the prompt; in a chat the last message of the user is added to.
    :param rows: the rows themselves.
    :param prompts: the prompts themselves, in place of rows.
    :param minimum: the fewest constraints to add.
    :param maximum: the most constraints to add; fewer where no more agree with one another.
    :param ids: constraint ids to choose from; without it every id but
        ``detectable_format:constrained_response``, which fits few questions.
    :param chat: whether text prompts become chats of one message.
    """

    path: str | None = None
    dataset: str | None = None
    split: str = "train"
    prompt: str = "prompt"
    rows: Sequence[Mapping[str, Any]] | None = None
    prompts: Sequence[str] | None = None
    minimum: int = 1
    maximum: int = 2
    ids: Sequence[str] | None = None
    chat: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum:
            raise ConfigError(
                "minimum must be at least 1 and maximum not below it, "
                f"not {self.minimum} and {self.maximum}"
            )
        for id_ in self.ids or ():
            if id_ not in KNOWN:
                raise ConfigError(f"ids: unknown constraint '{id_}'{near_miss(id_, KNOWN)}")
        if self.ids is not None and not self.ids:
            raise ConfigError("ids must name at least one constraint")
        _one_source(path=self.path, dataset=self.dataset, rows=self.rows, prompts=self.prompts)
        self._pick(random.Random(0), [])

    def __call__(self, *, count: int, seed: int, start: int = 0, **context: Any) -> Iterator[Row]:
        """``count`` rows.

        :raises DataError: as ``jsonl``, and for stated constraints that are unknown or wrong.
        """
        seed = context.get("run_seed", seed)
        rows = self._source(count=count, seed=seed, start=start)
        for index, row in enumerate(rows, start):
            yield self._constrained(random.Random(f"constraints {seed} {index}"), row)

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row has beside ``prompt``."""
        return tuple(dict.fromkeys((*self._source.columns, *OWN_COLUMNS)))

    @functools.cached_property
    def _source(self) -> Jsonl:
        rows = self.rows
        if self.prompts is not None:
            rows = [{self.prompt: prompt} for prompt in self.prompts]
        return Jsonl(self.path, self.dataset, self.split, self.prompt, rows=rows)

    @functools.cached_property
    def _choices(self) -> list[str]:
        if self.ids is not None:
            return sorted(set(self.ids))
        return sorted(set(KNOWN) - {"detectable_format:constrained_response"})

    def _pick(self, rng: random.Random, stated: Sequence[str]) -> list[str]:
        """Ids that agree with one another and with the ``stated`` ones."""
        wanted = rng.randint(self.minimum, self.maximum)
        best: list[str] = []
        for _ in range(_TRIES):
            picked: list[str] = []
            for id_ in rng.sample(self._choices, len(self._choices)):
                if len(picked) < wanted and not any(clash(id_, x) for x in (*stated, *picked)):
                    picked.append(id_)
            best = max(best, picked, key=len)
            if len(best) == wanted:
                break
        if len(best) < self.minimum and not stated:
            raise ConfigError(
                f"minimum is {self.minimum}, but no more than {len(best)} of the ids agree with "
                "one another"
            )
        return best

    def _constrained(self, rng: random.Random, row: Row) -> Row:
        query = row["prompt"]
        asked = text_of(query if isinstance(query, str) else [_last_of_user(query)])
        stated = list(row.get("instruction_id_list") or ())
        stated_kwargs = list(row.get("kwargs") or [{}] * len(stated))
        try:
            check_all("", stated, stated_kwargs, asked)
        except DataError as error:
            raise DataError(f"the row with the prompt {asked[:40]!r}: {error}") from error
        picked = self._pick(rng, stated)
        added = [parse(id_, KNOWN[id_].sample(rng, asked)) for id_ in picked]
        words = " ".join(constraint.describe(rng) for constraint in added)
        return {
            **row,
            "prompt": self._with(query, words),
            "instruction_id_list": stated + picked,
            "kwargs": stated_kwargs + [constraint.kwargs for constraint in added],
            "family": (picked or stated)[0].partition(":")[0],
            "level": len(stated) + len(picked),
        }

    def _with(self, query: Any, words: str) -> Any:
        if not words:
            return query
        if isinstance(query, str):
            text = f"{query.rstrip()}\n\n{words}"
            return [{"role": "user", "content": text}] if self.chat else text
        last = _last_of_user(query)
        return [
            {**message, "content": f"{text_of([message]).rstrip()}\n\n{words}"}
            if message is last
            else message
            for message in query
        ]

    def __getstate__(self) -> dict[str, Any]:
        """The options alone."""
        own = ("columns", "_source", "_choices")
        return {k: v for k, v in vars(self).items() if k not in own}


def _one_source(**sources: Any) -> None:
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"give exactly one of {', '.join(sources)}, not {' and '.join(given) or 'none of them'}"
        )


def _last_of_user(messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for message in messages[::-1]:
        if message["role"] == "user":
            return message
    raise DataError("a chat prompt has no message of the user to add constraints to")


@hookimpl
def risen_register_generators(register: Register) -> None:
    """Offer the generators of this module."""
    register("jsonl", Jsonl)
    register("constraints", Constraints)
