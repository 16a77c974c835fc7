"""Read the answers that phases have logged, as a stream."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_plugin.contracts import Completion, Failed, Prompt
from risen_plugin.errors import DataError, near_miss, near_path, one_line
from risen_plugin.kit.files import check_ordinary
from risen_plugin.record.rollouts.writing import COLUMNS, DERIVED, FILE, OF_A_REWARD
from risen_plugin.record.run_record import FOLDER
from risen_plugin.rewards.scores import Score

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

DAMAGE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError)
"""What pyarrow raises for a damaged file, MemoryError apart, and what odd values in it lead to."""
_TYPES = {
    "int32": re.compile(r"u?int\d+"),
    "int64": re.compile(r"u?int\d+"),
    "string": re.compile(r"(large_)?string(_view)?"),
    "float64": re.compile(r"double|float|halffloat"),
    "strings": re.compile(r"(large_)?list<.*string>"),
    "bools": re.compile(r"(large_)?list<.*bool>"),
    "ints": re.compile(r"(large_)?list<.*int\d+>"),
}


@dataclass(frozen=True, slots=True)
class Rollout:
    """One logged answer.

    :param where: its file and row, for messages.
    :param group: the same for the answers of one visit of a prompt; numbered within the phase.
    :param columns: the row's other columns.
    :param outcomes: its score by each reward, by the reward's name.
    :param completion_ids: its token ids; None in a log that lacks them.
    """

    where: str
    phase: int
    step: int
    group: int
    prompt: Prompt
    completion: Completion
    columns: Mapping[str, Any]
    outcomes: Mapping[str, Score]
    completion_ids: Sequence[int] | None = None


def read_rollouts(place: str | Path, *, phase: int | None = None) -> Iterator[Rollout]:
    """The logged answers of a run's output folder, a phase's folder or one file, as a stream.

    Phases come in order, and the answers of a group side by side. Memory holds one row group.

    :param phase: only the phase with this number.
    :raises DataError: at once, if there is no such log or it is none of ours; while reading, if
        it is damaged.
    """
    opened = [(path, open_log(path)) for path in rollout_files(place, phase=phase)]
    return (rollout for path, file in opened for rollout in _read(path, file))


def rollout_files(place: str | Path, *, phase: int | None = None) -> list[Path]:
    """The logs under a run's output folder, its ``risen`` folder or a phase's folder, in order.

    :raises DataError: if there are none.
    """
    place = Path(place)
    if place.is_file():
        logs = [place]
    elif not place.exists():
        raise DataError(f"there is no run or rollout log '{place}'{near_path(place)}")
    elif (place / FILE).is_file():
        logs = [place / FILE]
    else:
        logs = sorted(
            (log for folder in (place / FOLDER, place) for log in folder.glob(f"phase-*/{FILE}")),
            key=lambda log: (len(log.parent.name), log.parent.name),
        )
        if not logs:
            raise DataError(
                f"'{place}' has no rollouts: there is no {FOLDER}/phase-NNN/{FILE} in it; give the "
                "output folder of a run that has finished a RISEN phase"
            )
    if phase is None:
        return logs
    wanted = [path for path in logs if path.parent.name == f"phase-{phase:03d}"]
    if not wanted:
        have = ", ".join(path.parent.name for path in logs)
        raise DataError(f"'{place}' has no rollouts of phase {phase}; it has: {have}")
    return wanted


def logged_rewards(place: str | Path, *, phase: int | None = None) -> tuple[str, ...]:
    """The names of the rewards that answers were logged with, in the order of the log.

    :raises DataError: as :func:`read_rollouts`.
    """
    names: dict[str, None] = {}
    for path in rollout_files(place, phase=phase):
        names |= dict.fromkeys(_rewards_of(open_log(path).schema_arrow.names))
    return tuple(names)


def open_log(path: Path) -> ParquetFile:
    """The Parquet file of a log, for whoever reads some of its columns alone.

    :raises DataError: if it cannot be opened, or is no log.
    """
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        check_ordinary(path)
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
    except DAMAGE as error:
        reason = one_line(error)
        raise DataError(f"'{path}' is no rollout log: {reason}") from error
    names = schema.names
    lacking = [name for name in COLUMNS if name not in names]
    if lacking:
        raise DataError(
            f"'{path}' is no rollout log: it lacks the column '{lacking[0]}'"
            f"{near_miss(lacking[0], names) or '.'} It has: {', '.join(names) or 'none'}"
        )
    for name in _rewards_of(names):
        for part in OF_A_REWARD:
            if f"{part}/{name}" not in names:
                raise DataError(
                    f"'{path}' is no rollout log: it lacks the column '{part}/{name}' beside "
                    f"'outcome/{name}'"
                )
    for index, name in enumerate(names):
        kind = {**COLUMNS, **DERIVED, **OF_A_REWARD}.get(name if "/" not in name else _part(name))
        found = str(schema.field(index).type)
        if names.count(name) > 1:
            raise DataError(f"'{path}' is no rollout log: it has the column {name!r} twice")
        if kind is not None and not _TYPES[kind].fullmatch(found):
            raise DataError(f"'{path}' is no rollout log: its column {name!r} holds {found}")
    return file


def _part(name: str) -> str:
    return name.partition("/")[0]


def _rewards_of(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("outcome/") for name in names if name.startswith("outcome/")]


def _read(path: Path, file: ParquetFile) -> Iterator[Rollout]:
    rewards = _rewards_of(file.schema_arrow.names)
    number = 0
    for index in range(file.num_row_groups):
        try:
            rows = file.read_row_group(index).to_pylist()
        except DAMAGE as error:
            raise DataError(f"cannot read '{path}': {one_line(error)}") from error
        for row in rows:
            number += 1
            where = f"{path}, row {number}"
            try:
                rollout = Rollout(
                    where,
                    int(row["phase"]),
                    int(row["step"]),
                    int(row["group"]),
                    json.loads(row["prompt"]),
                    json.loads(row["completion"]),
                    dict(json.loads(row["columns"])),
                    {name: _score_of(row, name) for name in rewards},
                    row.get("completion_ids"),
                )
            except (*DAMAGE, RecursionError) as error:
                raise DataError(f"{where} is damaged: {one_line(error)}") from error
            yield rollout


def _score_of(row: Mapping[str, Any], name: str) -> Score:
    kind = row[f"outcome/{name}"]
    if kind == "error":
        return Failed(row[f"error/{name}"] or "no reason was logged")
    return float(row[f"score/{name}"]) if kind == "score" else None
