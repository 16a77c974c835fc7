"""Sources of instructions: a file, a dataset or a list, read one row at a time.

A row is read when it is drawn, so that a file of a million lines costs eight bytes a line.
Knows nothing of orders and seeds; ``supply`` checks the rows.
"""

from __future__ import annotations

import importlib
import json
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from risen_plugin.embedded import orders
from risen_plugin.errors import DataError, near_miss, near_path, one_line
from risen_plugin.instructions.plain import PLAIN, plain_file
from risen_plugin.kit.files import check_ordinary
from risen_plugin.kit.json_lines import IndexedLines

if TYPE_CHECKING:
    import pyarrow

LocatedRow = tuple[str, Any]
"""The origin of a row, such as ``data.jsonl:7``, and the row."""


class Source(Protocol):
    """Rows by their number, each with its origin."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> LocatedRow: ...

    def __iter__(self) -> Iterator[LocatedRow]: ...


def open_source(
    path: str | None, dataset: str | None, split: str, rows: Sequence[Any] | None
) -> Source:
    """The rows of a file, a dataset or a list, whichever is named.

    The path ``plain`` is that of the prompts in the package, and ``orders`` that of the messages
    that its embedded model knows, unless something here has this name.

    :raises DataError: if it cannot be read.
    """
    if rows is not None:
        return _Listed(rows, "rows[{}]")
    if path == PLAIN and not Path(path).exists():
        return _from_file(plain_file())
    if path == orders.ORDERS and not Path(path).exists():
        return _Listed(orders.instructions(), "order {}")
    if path is not None and not Path(path).is_dir():
        return _from_file(Path(path))
    return _from_dataset(dataset or str(path), split)


def check_there(path: Path) -> None:
    """Refuse a path without a file, before anything slow is done.

    :raises DataError: with the near miss.
    """
    if not path.exists():
        raise DataError(f"there is no file '{path}'{near_path(path)}")


class _Listed:
    """Rows of a list, or of a table that is indexed like one."""

    def __init__(self, rows: Any, name: str) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> LocatedRow:
        return self._name.format(index), self._rows[index]

    def __iter__(self) -> Iterator[LocatedRow]:
        return (self[index] for index in range(len(self)))


class _Lines:
    """The values in the lines of a file, of which only the beginnings are remembered."""

    def __init__(self, path: Path) -> None:
        self._lines = IndexedLines(path)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> LocatedRow:
        try:
            line = self._lines[index]
        except OSError as error:
            raise DataError(f"cannot read '{self._lines.path}': {one_line(error)}") from error
        return line.where, line.value()

    def __iter__(self) -> Iterator[LocatedRow]:
        return ((line.where, line.value()) for line in self._lines)


class _Table:
    """Rows of a pyarrow table, made into Python values one at a time."""

    def __init__(self, table: pyarrow.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Any:
        return self._table.slice(operator.index(index), 1).to_pylist()[0]


def _from_file(path: Path) -> Source:
    check_there(path)
    suffix = path.suffix.lower()
    try:
        check_ordinary(path)
        if suffix == ".parquet":
            parquet: Any = importlib.import_module("pyarrow.parquet")
            return _Listed(_Table(parquet.read_table(path)), f"{_braced(path)}, row {{}}")
        if suffix == ".json":
            return _from_json(path, path.read_text(encoding="utf-8-sig"))
        return _Lines(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read '{path}': {one_line(error)}") from error


def _from_json(path: Path, text: str) -> Source:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {one_line(error)}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a JSON list of rows, not a {type(rows).__name__}")
    return _Listed(rows, f"{_braced(path)}, row {{}}")


def _from_dataset(name: str, split: str) -> Source:
    # By name, so that no checker and no reader takes it for a light import.
    datasets: Any = importlib.import_module("datasets")
    try:
        if Path(name).is_dir() and _is_saved(Path(name)):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # it raises whatever its loaders raise
        raise DataError(f"cannot load the dataset '{name}': {one_line(error)}") from error
    if isinstance(loaded, dict):
        if split not in loaded:
            raise DataError(
                f"the dataset '{name}' has no split '{split}'{near_miss(split, loaded)}; "
                f"it has: {', '.join(loaded)}"
            )
        loaded = loaded[split]
    return _Listed(loaded, f"dataset '{_braced(name)}', row {{}}")


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))


def _braced(name: str | Path) -> str:
    return str(name).replace("{", "{{").replace("}", "}}")
