"""Read instructions from a file, a dataset or a list, with errors that name the row.

Knows nothing of orders and seeds; the generators draw from what is read here.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from risen_plugin.contracts import Row
from risen_plugin.errors import DataError, near_miss

Place = tuple[str, Any]
"""Where a row came from, such as ``data.jsonl:7``, and the row."""


def read(path: str | None, dataset: str | None, split: str, rows: Sequence[Any] | None) -> Any:
    """Places from the one source that is given."""
    if rows is not None:
        return [(f"rows[{index}]", row) for index, row in enumerate(rows)]
    if path is not None and not Path(path).is_dir():
        return _from_file(Path(path))
    return _from_dataset(dataset or str(path), split)


def prompts_of(places: Iterable[Place], prompt: str) -> list[Row]:
    """Rows whose column ``prompt`` is called ``prompt``, all of them text or all of them chat.

    :raises DataError: for a row that is no mapping or has no usable prompt, naming it.
    """
    rows: list[Row] = []
    first: tuple[str, bool] | None = None
    for where, row in places:
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is not a mapping of columns but a {type(row).__name__}")
        if prompt not in row:
            raise DataError(
                f"{where} has no column '{prompt}'{near_miss(prompt, row)}; "
                f"it has: {', '.join(map(str, row)) or 'none'}"
            )
        value = row[prompt]
        is_chat = _checked_prompt(value, f"{where}, column '{prompt}':")
        first = first or (where, is_chat)
        if is_chat != first[1]:
            raise DataError(
                f"{where} has a {_form(is_chat)} prompt but {first[0]} has a {_form(first[1])} "
                "one; a supply of instructions has one form"
            )
        rows.append(
            {"prompt": value, **{k: v for k, v in row.items() if k not in ("prompt", prompt)}}
        )
    return rows


def _form(is_chat: bool) -> str:
    return "chat" if is_chat else "text"


def _checked_prompt(value: Any, where: str) -> bool:
    """Whether ``value`` is a chat rather than a text; refuse it if it is neither, or blank."""
    if isinstance(value, str):
        if not value.strip():
            raise DataError(f"{where} the prompt is empty")
        return False
    if not isinstance(value, Sequence) or not value:
        raise DataError(f"{where} a prompt is a text or a list of chat messages, not {value!r:.60}")
    for message in value:
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise DataError(f"{where} a chat message has 'role' and 'content', not {message!r:.60}")
    return True


def _from_file(path: Path) -> list[Place]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            parquet: Any = importlib.import_module("pyarrow.parquet")
            rows = parquet.read_table(path).to_pylist()
            return [(f"{path}, row {index}", row) for index, row in enumerate(rows)]
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"there is no file '{path}'{_beside(path)}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read '{path}': {_one_line(error)}") from error
    if suffix == ".json":
        return _from_json(path, text)
    return list(_from_lines(path, text))


def _from_json(path: Path, text: str) -> list[Place]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {_one_line(error)}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a JSON list of rows, not a {type(rows).__name__}")
    return [(f"{path}, row {index}", row) for index, row in enumerate(rows)]


def _from_lines(path: Path, text: str) -> Iterable[Place]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is not JSON: {_one_line(error)}") from error


def _from_dataset(name: str, split: str) -> list[Place]:
    # By name, so that no checker and no reader takes it for a light import.
    datasets: Any = importlib.import_module("datasets")
    try:
        if Path(name).is_dir() and _is_saved(Path(name)):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # it raises whatever its loaders raise
        raise DataError(f"cannot load the dataset '{name}': {_one_line(error)}") from error
    if isinstance(loaded, Mapping):
        if split not in loaded:
            raise DataError(
                f"the dataset '{name}' has no split '{split}'{near_miss(split, loaded)}; "
                f"it has: {', '.join(loaded)}"
            )
        loaded = loaded[split]
    return [(f"dataset '{name}', row {index}", row) for index, row in enumerate(loaded)]


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))


def _beside(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder '{path.parent}' either"
    return near_miss(path.name, [other.name for other in path.parent.iterdir()])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
