"""The rows of a burst: demonstrations that a person wrote, mixed with own verified answers. Pure.

Demonstrations are rows with ``prompt`` and ``completion``, such as ``risen unsolved`` writes with
the completion left to fill in. Loaded where there are demonstrations, or a burst is to begin.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.contracts import Completion, Prompt, Row, is_blank, text_of
from risen_plugin.errors import ConfigError, DataError, near_miss, near_path
from risen_plugin.kit.json_lines import read_lines


def load_demonstrations(source: str | Path | Iterable[Row] | None) -> list[Row]:
    """The demonstrations of a JSON Lines file, or of rows; those still to be written are left out.

    A completion may be text or chat messages; text that answers a chat becomes the assistant's
    message.

    :raises ConfigError: if the file cannot be read.
    :raises DataError: for a row that is no demonstration, naming its line.
    """
    if source is None:
        return []
    rows: list[Row] = []
    for where, row in _numbered(source):
        prompt, completion = _parts(row, where)
        if is_blank(text_of(completion)):
            continue
        if isinstance(completion, str) and not isinstance(prompt, str):
            completion = [{"role": "assistant", "content": completion}]
        elif not isinstance(completion, str) and isinstance(prompt, str):
            completion = text_of(completion)
        rows.append({"prompt": prompt, "completion": completion})
    return rows


def _numbered(source: str | Path | Iterable[Row]) -> Iterable[tuple[str, Any]]:
    if not isinstance(source, str | Path):
        yield from ((f"demonstration {index}", row) for index, row in enumerate(source))
        return
    try:
        yield from ((line.where, line.value()) for line in read_lines(source))
    except OSError as error:
        near = near_path(Path(source))
        raise ConfigError(
            f"cannot read the demonstrations {source}: {error.strerror}{near}"
        ) from error


def _parts(row: Any, where: str) -> tuple[Prompt, Completion]:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is a {type(row).__name__}, not a row with prompt and completion")
    for name in ("prompt", "completion"):
        if name not in row:
            raise DataError(
                f"{where} has no '{name}'{near_miss(name, map(str, row)) or '.'} It has: "
                f"{', '.join(map(str, row)) or 'nothing'}"
            )
    prompt = row["prompt"]
    completion = "" if row["completion"] is None else row["completion"]
    for name, value in (("prompt", prompt), ("completion", completion)):
        if not _is_text_or_chat(value):
            raise DataError(
                f"{where}: {name} is {value!r:.60}; it is a text, or a list of chat messages with "
                "role and content"
            )
    if is_blank(text_of(prompt)):
        raise DataError(f"{where}: prompt is empty")
    return prompt, completion


def _is_text_or_chat(value: object) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list | tuple) and all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in value
    )


@dataclass(frozen=True)
class Mixture:
    """Rows to fine-tune on, in order.

    :param own: how many of them are own verified answers.
    :param demonstrations: how many a person wrote.
    """

    rows: Sequence[Row]
    own: int
    demonstrations: int


def mix(
    own: Sequence[Row], demonstrations: Sequence[Row], *, count: int, own_share: float, seed: int
) -> Mixture:
    """``count`` rows, ``own_share`` of them own answers, spread evenly.

    Where one of both has none, the other fills its place. Each is gone through in random order, and
    again in another order when all of it has been taken.

    :param seed: of the orders.
    """
    if not own and not demonstrations:
        return Mixture((), 0, 0)
    share = 1.0 if not demonstrations else 0.0 if not own else own_share
    supplies = (_endless(own, f"{seed} own"), _endless(demonstrations, f"{seed} demonstrations"))
    rows: list[Row] = []
    taken = 0
    for place in range(1, count + 1):
        is_own = round(place * share) > taken
        taken += is_own
        rows.append(next(supplies[0 if is_own else 1]))
    return Mixture(rows, taken, count - taken)


def _endless(rows: Sequence[Row], seed: str) -> Iterator[Row]:
    rng = random.Random(seed)
    while rows:
        yield from rng.sample(rows, len(rows))
