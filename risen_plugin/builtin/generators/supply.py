"""A source as a supply of instructions: each row has a prompt, and all prompts have one form.

Rows are checked as they are read, the first ones at once, with errors that name the line. The
generators draw from a supply in their own order.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from risen_plugin.builtin.generators.forms import (
    Form,
    UnusableError,
    adapted,
    checked,
    form_of,
    read_as_values,
    states_constraints,
)
from risen_plugin.builtin.generators.sources import LocatedRow, Source
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.instructions.rows import check_characters
from risen_plugin.instructions.validity import FilterReport

Unusable: TypeAlias = Literal["error", "skip", "keep"]
CHECKED_AT_ONCE = 10_000
"""So many rows are checked before the first one is used; the columns are those of them all."""


class Supply:
    """The rows of ``source`` by their number, with their prompt called ``prompt``.

    :param name: the name of the source in messages.
    :param prompt: the column with the prompt, text or chat messages.
    :param append: a column whose text, where there is one, follows the prompt after an empty line;
        dots reach inside, as in ``instances.0.input``.
    :param form: how rows state their constraints; ``auto`` goes by the first row, and by
        each one where that is plain.
    :param unusable: whether a row with a constraint that nothing here can check is an error, or
        left out and counted in ``report``, or kept if it is plain. A source of whose first rows
        some state constraints is read through once to know; rows that state none are left out of
        it, too, where others are.
    :raises DataError: if there is no row, or one of the first is unfit.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        prompt: str = "prompt",
        append: str | None = None,
        form: Form = "auto",
        unusable: Unusable = "error",
    ) -> None:
        self.report = FilterReport()
        self._source = source
        self._append = append
        self._has_appended = False
        self._prompt = prompt
        self._first: tuple[str, bool] | None = None  # its origin, and whether it is a chat
        self._usable: array[int] | None = None
        if not len(source):
            raise DataError(f"{name} holds no instructions")
        public = form_of(source[0][1]) if form == "auto" else "plain"
        self._form: Form = form if public == "plain" else public
        self._unusable = unusable
        first = itertools.islice(source, CHECKED_AT_ONCE)
        if self._form in ("rlvr", "multi") or any(states_constraints(row) for _, row in first):
            self._look_at_all(name)
        else:
            self._look_at_the_first()
        if append is not None and not self._has_appended:
            raise DataError(f"no row of {name} has a text at '{append}' to append")

    def __len__(self) -> int:
        return len(self._source) if self._usable is None else len(self._usable)

    def __getitem__(self, index: int) -> Row:
        """The row of this number, a new mapping each time.

        :raises DataError: naming its origin, if it is no mapping or has no usable prompt.
        """
        return self._row(self._source[index if self._usable is None else self._usable[index]])

    def _look_at_the_first(self) -> None:
        columns: dict[str, None] | None = None
        for located in itertools.islice(self._source, CHECKED_AT_ONCE):
            columns = _shared(columns, self._row(located))
        self.columns = tuple(columns or ())

    def _look_at_all(self, name: str) -> None:
        columns: dict[str, None] | None = None
        usable = array("Q")
        for index, located in enumerate(self._source):
            try:
                row = self._row(located)
            except UnusableError as error:
                if self._unusable != "skip":
                    raise DataError(
                        f"{error}; with the option unusable: skip such rows are left out and "
                        "counted"
                    ) from error
                self.report.drop(error.reason, str(error))
                continue
            if self._unusable == "skip" and not row.get("instruction_id_list"):
                self.report.drop("no constraints stated", located[0])
                continue
            usable.append(index)
            self.report.keep()
            columns = _shared(columns, row)
        if not usable:
            raise DataError(f"{name} holds no usable instructions: {self.report}")
        self._usable = usable if len(usable) < len(self._source) else None
        self.columns = tuple(columns or ())

    def _row(self, located: LocatedRow) -> Row:
        where, row = located
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is of type {type(row).__name__}, not a mapping of columns")
        prompt = self._prompt
        form = form_of(row) if self._form == "auto" else self._form
        if form != "plain":
            row = adapted(row, form, where)
            if prompt == "prompt" and prompt not in row and "messages" in row:
                prompt = "messages"
        elif self._unusable != "keep":
            row = checked(row, where)
        else:
            row = read_as_values(row)
        if prompt not in row:
            raise DataError(
                f"{where} has no column '{prompt}'{near_miss(prompt, row)}; "
                f"it has: {', '.join(map(str, row)) or 'none'}"
            )
        check_characters(row, where)
        value = row[prompt]
        self._check(value, where, prompt)
        if self._append is not None:
            longer = _appended(value, row, self._append, where)
            self._has_appended |= longer is not value
            value = longer
        return {"prompt": value, **{k: v for k, v in row.items() if k not in ("prompt", prompt)}}

    def _check(self, value: object, where: str, prompt: str) -> None:
        is_chat = _checked_prompt(value, f"{where}, column '{prompt}':")
        if self._first is None:
            self._first = where, is_chat
        first, was_chat = self._first
        if is_chat != was_chat:
            raise DataError(
                f"{where} has a {_form_name(is_chat)} prompt but {first} has a "
                f"{_form_name(was_chat)} one; a supply of instructions has one form"
            )


def check_form(form: object, unusable: object) -> None:
    """Refuse options that a call from Python can get wrong.

    :raises ConfigError: naming the option.
    """
    forms = ("auto", "plain", "rlvr", "multi")
    if form not in forms:
        hint = near_miss(str(form), forms)
        raise ConfigError(f"form must be one of {', '.join(forms)}, not {form!r}{hint}")
    if unusable not in ("error", "skip", "keep"):
        raise ConfigError(f"unusable must be error or skip, or keep, not {unusable!r}")


def _shared(columns: dict[str, None] | None, row: Row) -> dict[str, None]:
    if columns is None:
        return {name: None for name in row if name != "prompt"}
    if all(name in row for name in columns):
        return columns
    return {name: None for name in columns if name in row}


def _form_name(is_chat: bool) -> str:
    return "chat" if is_chat else "text"


def _checked_prompt(value: object, where: str) -> bool:
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


def _appended(prompt: Any, row: Row, path: str, where: str) -> Any:
    if not isinstance(prompt, str):
        raise DataError(f"{where}: append adds to text prompts, and this one is a chat")
    column, *inside = path.split(".")
    if column not in row:
        raise DataError(f"{where} has no column '{column}' to append{near_miss(column, row)}")
    value = row[column]
    for step in inside:
        value = _inside(value, step)
    if value is None:
        return prompt
    if not isinstance(value, str):
        raise DataError(f"{where}: the value at '{path}' is no text but {value!r:.60}")
    return f"{prompt.rstrip()}\n\n{value.strip()}" if value.strip() else prompt


def _inside(value: object, step: str) -> Any:
    """The value at ``step`` in a mapping or list; None if there is none."""
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return value[int(step)]
    return None
