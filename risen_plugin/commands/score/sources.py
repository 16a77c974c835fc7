"""Files of answers as rows: JSON Lines, JSON, Parquet, samples of lm-eval, or two files joined.

Streams, each row with its number and place; a row that cannot be read is a DataError in its stead.
What an answer needs of a row is left to ``rows``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.contracts import text_of
from risen_plugin.errors import DataError, near_miss, one_line
from risen_plugin.kit.json_lines import lines_in

_KEYS = ("key", "prompt")
"""The columns that two files are joined by, the first that both have."""


@dataclass(frozen=True, slots=True)
class Located:
    """One row of a file.

    :param number: its line or row, from 1.
    :param where: its place for messages.
    :param value: the row, or why there is none.
    """

    number: int
    where: str
    value: Any


def rows_in(file: Any, name: str) -> Iterator[Located]:
    """The rows of an open binary file, by its ending: ``.parquet``, ``.json``, else lines.

    A sample of lm-eval becomes a row: its ``doc`` with the answer as ``completion``.

    :raises DataError: if the file as a whole cannot be read.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".parquet":
        found = _numbered(_of_parquet(file, name), name)
    elif suffix == ".json":
        found = _numbered(_of_list(file, name), name)
    else:
        found = _of_lines(file, name)
    return (Located(one.number, one.where, _of_sample(one.value)) for one in found)


def _of_lines(file: Iterable[bytes], name: str) -> Iterator[Located]:
    for line in lines_in(file, name):
        try:
            yield Located(line.number, line.where, line.value())
        except DataError as error:
            yield Located(line.number, line.where, error)


def _numbered(rows: Iterable[Any], name: str) -> Iterator[Located]:
    for number, row in enumerate(rows, start=1):
        yield Located(number, f"{name}, row {number}", row)


def _of_parquet(file: Any, name: str) -> Iterator[Any]:
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=256):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read '{name}': {one_line(error)}") from error


def _of_list(file: Any, name: str) -> Iterator[Any]:
    try:
        rows = json.loads(file.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {one_line(error)}") from error
    if not isinstance(rows, list):
        raise DataError(f"{name} must hold a JSON list of rows, not a {type(rows).__name__}")
    yield from rows


def _of_sample(row: Any) -> Any:
    """A sample that lm-eval logged as a row; any other row as it is."""
    if not isinstance(row, Mapping) or not isinstance(row.get("doc"), Mapping):
        return row
    answer = row.get("filtered_resps") or row.get("resps")
    while isinstance(answer, Sequence) and not isinstance(answer, str) and answer:
        answer = answer[0]
    if not isinstance(answer, str):
        return row
    doc = row["doc"]
    prompt = doc.get("prompt") or _first_text(row.get("arguments"))
    return {**({} if prompt is None else {"prompt": prompt}), **doc, "completion": answer}


def _first_text(value: Any) -> str | None:
    """The first text in lists and mappings inside one another: the prompt of a request."""
    while not isinstance(value, str):
        if isinstance(value, Mapping):
            value = next(iter(value.values()), None)
        elif isinstance(value, Sequence) and value:
            value = value[0]
        else:
            return None
    return value


class Joined:
    """Rows of answers, each with the columns of its prompt's row in another file.

    :param by: the column that both have; None for ``key``, else ``prompt``.
    :raises DataError: if a row of prompts cannot be read, or two have the same value.
    """

    def __init__(self, prompts: Iterable[Located], name: str, by: str | None) -> None:
        self.name = name
        self._rows: list[Located] = []
        for one in prompts:
            if isinstance(one.value, DataError):
                raise one.value
            if not isinstance(one.value, Mapping):
                raise DataError(f"{one.where} is no mapping of columns")
            self._rows.append(one)
        if not self._rows:
            raise DataError(f"{name} has no rows")
        self._by = by
        self._index: dict[str, Located] | None = None
        self._used: set[int] = set()

    @property
    def unanswered(self) -> int:
        """How many rows of prompts no answer was found for so far."""
        return len(self._rows) - len(self._used)

    def of(self, answers: Iterable[Located]) -> Iterator[Located]:
        """The answers' rows with the columns of their prompts; the former's own have the say."""
        for one in answers:
            if not isinstance(one.value, Mapping):
                yield one
                continue
            try:
                found = self._found(one)
            except DataError as error:
                yield Located(one.number, one.where, error)
                continue
            self._used.add(found.number)
            yield Located(one.number, one.where, {**found.value, **one.value})

    def _found(self, answer: Located) -> Located:
        index = self._indexed(answer)
        by = str(self._by)
        if by not in answer.value:
            hint = near_miss(by, answer.value)
            raise DataError(f"{answer.where} has no column '{by}' to join by{hint}")
        value = _joinable(answer.value[by])
        if value not in index:
            hint = near_miss(value, index) if len(value) < 40 else ""
            raise DataError(
                f"{answer.where}: {self.name} has no row with the {by} {value!r:.60}{hint}"
            )
        return index[value]

    def _indexed(self, answer: Located) -> Mapping[str, Located]:
        if self._index is not None:
            return self._index
        if self._by is None:
            both = [key for key in _KEYS if key in answer.value and key in self._rows[0].value]
            if not both:
                raise DataError(
                    f"{answer.where} and {self._rows[0].where} share none of the columns "
                    f"{' and '.join(_KEYS)}; name another with --join-by"
                )
            self._by = both[0]
        self._index = {}
        for row in self._rows:
            if self._by not in row.value:
                raise DataError(f"{row.where} has no column '{self._by}' to join by")
            value = _joinable(row.value[self._by])
            if value in self._index:
                earlier = self._index[value].where
                raise DataError(f"{row.where} has the same {self._by} as {earlier}: {value!r:.60}")
            self._index[value] = row
        return self._index


def _joinable(value: Any) -> str:
    """Keys may be numbers in one file and texts in the other; prompts texts or chats."""
    is_chat = isinstance(value, list) and all(isinstance(one, Mapping) for one in value)
    return (text_of(value) if is_chat else str(value)).strip()
