"""Read answers from JSON Lines as a stream, each row with its file and line.

A row that cannot be used becomes an :class:`Unusable`, and the caller decides whether to stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from risen_plugin.builtin.generators.forms import adapted, form_of
from risen_plugin.contracts import Completion, Prompt, is_blank, text_of
from risen_plugin.errors import DataError, near_miss, one_line
from risen_plugin.kit.json_lines import lines_in

_OF_THE_TRAINER = ("prompts", "completions")


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
    lines: Iterable[bytes],
    name: str,
    *,
    prompt: str = "prompt",
    completion: str = "completion",
    states_constraints: bool = False,
) -> Iterator[Answer | Unusable]:
    """One answer per line that is not blank.

    :param lines: an open binary file, so that a line that is no UTF-8 is named by its number.
    :param name: the name of the file in messages.
    :param prompt: the column with the prompt.
    :param completion: the column with the answer, a text or chat messages.
    :param states_constraints: whether rows may state constraints in one of the public forms, as
        the generator ``jsonl`` reads them; their prompt may be in ``messages`` then.
    """
    for line in lines_in(lines, name):
        number, where = line.number, line.where
        try:
            row = line.value()
            if not isinstance(row, Mapping):
                raise ValueError(f"is of type {type(row).__name__}, not a mapping of columns")
            form = form_of(row) if states_constraints else "plain"
            if form != "plain":
                row = adapted(row, form, where)
                if "prompt" == prompt not in row and "messages" in row:
                    row = {"prompt": row["messages"], **row}
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
