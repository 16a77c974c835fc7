"""The generator ``jsonl``: the rows of a file or dataset in one seeded order after another.

A pure function of its options and the arguments: the same seed and ``start`` give the same rows, so
that a resumed run sees what an uninterrupted one sees.
"""

from __future__ import annotations

import functools
import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.builtin.generators.forms import Form
from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.builtin.generators.supply import Supply, Unusable, check_form
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError
from risen_plugin.instructions.validity import FilterReport


@dataclass(frozen=True)
class Jsonl:
    """Rows of a file or dataset, in one seeded order after another.

    Give one of ``path``, ``dataset`` and ``rows``. ``start`` in the context is the number of rows
    drawn before, and ``run_seed`` takes the place of the seed in making the order, so that the
    draws of a run follow one another through it. A file of lines is not loaded: it costs some
    twelve bytes a row, and a row is read when it is drawn.

    :param path: a file with one JSON object per line (``.json``: one list; ``.parquet``), or a
        folder that ``datasets`` saved; ``plain`` is the prompts that come with the package.
    :param dataset: the name or folder of a dataset for ``datasets.load_dataset``.
    :param split: the split of a dataset.
    :param prompt: the column with the prompt, text or chat messages; it is called ``prompt`` in
        the rows. The other columns stay as they are.
    :param append: a column whose text follows the prompt after an empty line, where there is one;
        dots reach inside, as in ``instances.0.input``.
    :param shuffle: False takes the rows in the order of the source.
    :param rows: the rows themselves.
    :param form: how rows state their constraints: ``plain`` (``instruction_id_list`` and
        ``kwargs``), ``rlvr`` (``ground_truth`` with ``func_name``, as RLVR-IFeval), ``multi``
        (``ground_truth`` with lists of ``instruction_id``, as IF_multi_constraints); ``auto`` goes
        by the first row, and by each one where that is plain. The latter two become plain, and
        their prompt is in ``messages``; their ``ground_truth`` may stand in ``reward_model``.
    :param unusable: what to do with a row that states a constraint which nothing here can check:
        ``error``, ``skip`` to leave it out and count it in ``report()``, together with rows that
        state none where others do, or ``keep`` for a reward that knows ids of its own.
    """

    path: str | None = None
    dataset: str | None = None
    split: str = "train"
    prompt: str = "prompt"
    append: str | None = None
    shuffle: bool = True
    rows: Sequence[Mapping[str, Any]] | None = None
    form: Form = "auto"
    unusable: Unusable = "error"

    def __post_init__(self) -> None:
        one_source(path=self.path, dataset=self.dataset, rows=self.rows)
        check_form(self.form, self.unusable)

    def __call__(self, *, count: int, seed: int, start: int = 0, **context: Any) -> Iterator[Row]:
        """``count`` rows.

        :raises DataError: if the source cannot be read, is empty or has a row without a prompt.
        """
        supply, seed = self.supply, context.get("run_seed", seed)
        for index in range(start, start + count):
            turn, rank = divmod(index, len(supply))
            yield dict(supply[_order(len(supply), seed, turn)[rank] if self.shuffle else rank])

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row has beside ``prompt``, as far as the first rows show.

        :raises DataError: as a call does.
        """
        return self.supply.columns

    def report(self) -> FilterReport:
        """Counts of the rows left out of the source, by reason.

        :raises DataError: as a call does.
        """
        return self.supply.report

    @functools.cached_property
    def supply(self) -> Supply:
        """The rows, opened and checked once.

        :raises DataError: as a call does.
        """
        return Supply(
            open_source(self.path, self.dataset, self.split, self.rows),
            name=self.path or self.dataset or "rows",
            prompt=self.prompt,
            append=self.append,
            form=self.form,
            unusable=self.unusable,
        )

    def __getstate__(self) -> dict[str, Any]:
        """The options alone: rows are read again by whoever needs them."""
        return {k: v for k, v in vars(self).items() if k != "supply"}


@functools.lru_cache(maxsize=2)
def _order(size: int, seed: int, turn: int) -> array[int]:
    """The order of the rows the ``turn``-th time round."""
    order = array("I", range(size))
    random.Random(f"order {seed} {turn}").shuffle(order)
    return order


def one_source(**sources: object) -> None:
    """Refuse none or several of ``sources``.

    :raises ConfigError: naming the sources that are set.
    """
    named = [name for name, value in sources.items() if value is not None]
    if len(named) != 1:
        raise ConfigError(
            f"give exactly one of {', '.join(sources)}, not {' and '.join(named) or 'none of them'}"
        )
