"""Read answers from the rows of a file as a stream, each with its file and line.

A row that cannot be used becomes an :class:`Unusable`, and the caller decides whether to stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from risen_plugin.builtin.generators.forms import adapted, form_of, read_as_values
from risen_plugin.commands.score.sources import Joined, rows_in
from risen_plugin.contracts import Completion, Prompt, is_blank, text_of
from risen_plugin.errors import DataError, near_miss, one_line

_OF_THE_TRAINER = ("prompts", "completions")
_ANSWER, _ALSO_ANSWERS = "completion", ("response",)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to score.

    :param row: its line number, from 1.
    :param where: its file and line, for messages.
    :param columns: the row's other columns.
    """

    row: int
    where: str
    prompt: Prompt
    completion: Completion
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unusable:
    """A row that holds no answer.

    :param reason: why, in one line that names file and line.
    """

    row: int
    where: str
    reason: str


def read_answers(
    file: Iterable[bytes],
    name: str,
    *,
    prompt: str = "prompt",
    completion: str = "completion",
    states_constraints: bool = False,
    joined: Joined | None = None,
) -> Iterator[Answer | Unusable]:
    """One answer per row.

    :param file: an open binary file; see :func:`~risen_plugin.commands.score.sources.rows_in`.
    :param name: the name of the file in messages, which also says its format.
    :param prompt: the column with the prompt.
    :param completion: the column with the answer, a text or chat messages; ``response`` takes the
        place of ``completion`` where a row has no other.
    :param states_constraints: whether rows may state constraints in one of the public forms, as
        the generator ``jsonl`` reads them; their prompt may be in ``messages`` then.
    :param joined: the prompts and their columns, where the file has the answers alone.
    """
    rows = rows_in(file, name)
    for located in rows if joined is None else joined.of(rows):
        number, where, row = located.number, located.where, located.value
        try:
            if isinstance(row, DataError):
                raise row
            if not isinstance(row, Mapping):
                raise ValueError(f"is of type {type(row).__name__}, not a mapping of columns")
            form = form_of(row) if states_constraints else "plain"
            if form != "plain":
                row = adapted(row, form, where)
                if "prompt" == prompt not in row and "messages" in row:
                    row = {"prompt": row["messages"], **row}
            elif states_constraints:
                row = read_as_values(row)
            if completion == _ANSWER not in row:
                of_another_name = next((name for name in _ALSO_ANSWERS if name in row), _ANSWER)
                yield _answer(number, where, row, prompt, of_another_name)
            else:
                yield _answer(number, where, row, prompt, completion)
        except DataError as error:
            yield Unusable(number, where, str(error))
        except ValueError as error:
            yield Unusable(number, where, f"{where} {one_line(error)}")


def _answer(
    number: int, where: str, row: Mapping[str, Any], prompt: str, completion: str
) -> Answer:
    for column in (prompt, completion):
        if column not in row:
            known = [name for name in row if name not in (prompt, completion)]
            named = "--prompt-column" if column == prompt else "--completion-column"
            hint = near_miss(column, known) or f"; {named} names another."
            raise ValueError(f"has no column '{column}'{hint} It has: {', '.join(row) or 'none'}")
    for column in (prompt, completion):
        if not isinstance(row[column], str) and not _is_chat(row[column]):
            raise ValueError(
                f"has {row[column]!r:.60} in '{column}'; that is a text, or a list of chat "
                "messages with 'role' and 'content'"
            )
    if is_blank(text_of(row[prompt])):
        raise ValueError(f"has an empty prompt in '{prompt}'")
    for column in _OF_THE_TRAINER:
        if column in row and column not in (prompt, completion):
            raise ValueError(f"has a column '{column}', which rewards get as a batch; rename it")
    others = {key: value for key, value in row.items() if key not in (prompt, completion)}
    return Answer(number, where, row[prompt], row[completion], others)


def _is_chat(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, Mapping) and "role" in m and "content" in m for m in value)
    )
