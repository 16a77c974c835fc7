"""Read the rows of a run, tell their form, and refuse unfit rows by file and line.

The forms are ``prompt`` and ``completion`` (text or chat messages), ``messages``, and ``text``.
Knows no tokenizer and leaves tokens to the trainer.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.commands.train.run_config import DataSource
from risen_plugin.errors import DataError, near_miss
from risen_plugin.instructions.rows import check_characters

FORMS: Mapping[str, tuple[str, ...]] = {
    "completions": ("prompt", "completion"),
    "messages": ("messages",),
    "text": ("text",),
}
RENDERED_WITH = ("tools", "chat_template_kwargs")
"""Columns of a chat that its template is rendered with, where a row has them."""
Row = dict[str, Any]


def read_rows(source: DataSource) -> list[Row]:
    """Every row of ``source`` with the columns of its form and template alone, all of one form.

    :raises DataError: if it cannot be read or is empty, or a row does not fit, with file and line.
    """
    rows = [usable for usable, _ in read_with_columns(source)]
    if not rows:
        raise DataError(f"{source.name} has no rows")
    return rows


def read_with_columns(source: DataSource) -> list[tuple[Row, Mapping[str, Any]]]:
    """The rows of :func:`read_rows`, each with all the columns of its source."""
    opened = open_source(source.path, source.dataset, source.split, None)
    rows: list[tuple[Row, Mapping[str, Any]]] = []
    form: str | None = None
    first = ""
    for where, row in itertools.islice(opened, source.limit):
        renamed = _renamed(row, source.columns, where)
        this = _form_of(renamed, where)
        if form is None:
            form, first = this, where
        if this != form:
            raise DataError(
                f"{where} has {_columns_of(this)} but {first} {_columns_of(form)}; keep to one"
            )
        rows.append((_checked(renamed, FORMS[this], where), renamed))
    kinds = {isinstance(row.get("prompt"), str) for row, _ in rows}
    if form == "completions" and len(kinds) > 1:
        raise DataError(f"{source.name} has text and chat prompts side by side; keep to one form")
    return rows


def split_off(rows: Sequence[Row], part: float | int, seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to train on, rows to evaluate on): a share below 1 or a number of rows, at random.

    :raises DataError: if either would be empty.
    """
    count = round(part * len(rows)) if isinstance(part, float) else part
    if not 0 < count < len(rows):
        raise DataError(
            f"evaluation takes {count} of {len(rows)} rows of data; leave some on both sides"
        )
    indices = set(random.Random(f"evaluation {seed}").sample(range(len(rows)), count))
    return (
        [row for index, row in enumerate(rows) if index not in indices],
        [row for index, row in enumerate(rows) if index in indices],
    )


def _renamed(row: Any, columns: Mapping[str, str], where: str) -> Mapping[str, Any]:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is of type {type(row).__name__}, not a mapping of columns")
    if not columns:
        return row
    for theirs in columns.values():
        if theirs not in row:
            raise DataError(
                f"{where} has no column '{theirs}'{near_miss(theirs, row) or '.'} "
                f"It has: {', '.join(map(str, row)) or 'none'}"
            )
    rest = {name: value for name, value in row.items() if name not in columns.values()}
    return {**rest, **{ours: row[theirs] for ours, theirs in columns.items()}}


def _form_of(row: Mapping[str, Any], where: str) -> str:
    for form, names in FORMS.items():
        if all(row.get(name) is not None for name in names):
            return form
    missing = [name for names in FORMS.values() for name in names if name not in row]
    hints = [(name, near_miss(str(name), missing)) for name in row]
    hint = next((f" ('{name}'{near})" for name, near in hints if near), "")
    raise DataError(
        f"{where} has no usable columns among {', '.join(map(str, row)) or 'none'}{hint}; a row "
        "has prompt and completion, messages, or text, and columns: {prompt: ..., completion: ...} "
        "renames them"
    )


def _checked(row: Mapping[str, Any], names: Sequence[str], where: str) -> Row:
    chosen = {name: row[name] for name in names}
    rendered_with = {
        name: _structure(row[name], name, where)
        for name in RENDERED_WITH
        if row.get(name) is not None
    }
    for name, value in chosen.items():
        is_text = isinstance(value, str)
        if not (is_text if name == "text" else is_text or _is_chat(value)) or (
            name == "messages" and is_text
        ):
            wanted = {"text": "a text", "messages": "a list of chat messages"}.get(
                name, "a text or a list of chat messages"
            )
            raise DataError(f"{where}: column '{name}' is {value!r:.60}; it is {wanted}")
        if name != "completion" and not value:
            raise DataError(f"{where}: column '{name}' is empty")
    check_characters({**chosen, **rendered_with}, where)
    if "prompt" in chosen and isinstance(chosen["prompt"], str) != isinstance(
        chosen["completion"], str
    ):
        if isinstance(chosen["completion"], str):
            chosen["completion"] = [{"role": "assistant", "content": chosen["completion"]}]
        else:
            chosen["prompt"] = [{"role": "user", "content": chosen["prompt"]}]
    is_chat = not any(isinstance(value, str) for value in chosen.values())
    return {**chosen, **rendered_with} if is_chat else chosen


def _structure(value: object, name: str, where: str) -> object:
    """Tools or template arguments, also where they are JSON in a text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(f"{where}: column '{name}' is a text but no JSON") from error
    wanted, kind = (list, "a list of tools") if name == "tools" else (Mapping, "a mapping")
    if not isinstance(value, wanted):
        raise DataError(f"{where}: column '{name}' is {value!r:.60}; it is {kind}")
    return value


def _is_chat(value: object) -> bool:
    return isinstance(value, Sequence) and all(
        isinstance(message, Mapping)
        and "role" in message
        and ("content" in message or "tool_calls" in message)
        for message in value
    )


def _columns_of(form: str) -> str:
    return f"the columns {' and '.join(FORMS[form])}"
