"""Write down every answer that a phase samples, and read such logs as a stream.

One Parquet file per phase, ``risen/phase-NNN/completions.parquet``, one row per answer. What the
answers are compared by is left to others. pyarrow is loaded when a file is written or read.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from risen_plugin.constraints.outcomes import constraints_of, met_by
from risen_plugin.contracts import Completion, Failed
from risen_plugin.errors import DataError, RecordError, RisenError, near_miss
from risen_plugin.plain_json import json_text
from risen_plugin.record import FOLDER, writing

FILE = "completions.parquet"
ROWS_AT_ONCE = 1024
Outcome: TypeAlias = float | Failed | None
"""What a reward made of one answer: a score, an abstention, or an error with its reason."""
OutcomeName: TypeAlias = Literal["score", "abstain", "error"]

_OURS = {
    "phase": "int32",
    "step": "int32",
    "group": "int64",
    "prompt": "string",
    "completion": "string",
    "columns": "string",
}
_DERIVED = {"family": "string", "constraints": "strings", "met": "bools"}
"""What is told of the columns and the answer for readers of Parquet; logs may lack it."""
_OF_A_REWARD = {"score": "float64", "outcome": "string", "error": "string"}
_OF_THE_TRAINER = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
)  # TRL's extras, which are no columns of the rows

_log = logging.getLogger("risen_plugin")


def outcome_name(outcome: Outcome) -> OutcomeName:
    """``score``, ``abstain`` or ``error``."""
    if outcome is None:
        return "abstain"
    return "score" if math.isfinite(outcome) else "error"


def reason_of(outcome: Outcome) -> str | None:
    """Why there is no score where that is an error; None otherwise."""
    if outcome_name(outcome) != "error":
        return None
    return outcome.reason if isinstance(outcome, Failed) else f"the score is {outcome}"


# Writing


class RolloutLog:
    """Logs the answers of one phase to ``path``.

    The file appears, whole, at :meth:`close`; also when the phase failed, since what was sampled
    until then is evidence. A log without answers leaves no file, and neither does one that found
    no room: what is added to it afterwards is dropped. Memory holds one row group.

    :param path: the file to be; one that is there is replaced.
    :param rows_at_once: answers per row group.
    :param parts: where :meth:`cut` puts what was logged so far.
    :param position: what :meth:`cut` returned, to go on from there.
    :raises RecordError: from each method, where the place takes no more.

    ::

        with RolloutLog(folder / "completions.parquet") as log:
            log.add(step=1, phase=1, prompts=prompts, completions=completions,
                    columns=columns, outcomes={"constraints": [0.5, None, Failed("timed out")]})
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rows_at_once: int = ROWS_AT_ONCE,
        parts: Path | None = None,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.rows_at_once = rows_at_once
        self._temporary = self.path.with_name(f".{self.path.name}.tmp")
        self._rewards: tuple[str, ...] | None = None
        self._rows: list[dict[str, Any]] = []
        self._groups = 0
        self._writer: Any = None
        self._is_lost = False
        self._parts = parts
        self._closed: list[str] = []
        if position is not None:
            self._closed = list(position["parts"])
            self._groups = position["groups"]
            self._rewards = tuple(position["rewards"]) if position["rewards"] else None

    def add(
        self,
        *,
        step: int,
        phase: int,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        columns: Mapping[str, Any],
        outcomes: Mapping[str, Sequence[Outcome]],
        group_size: int | None = None,
    ) -> None:
        """Log a batch of answers.

        :param step: GRPO step in the phase.
        :param phase: the phase's number.
        :param columns: the rows' other columns, one value per answer; TRL's own extras, and what is
            no such list, are left out.
        :param outcomes: per reward, one outcome per answer; the same rewards in every batch.
        :param group_size: answers per visit of a prompt, side by side. Without it each stretch of
            equal prompts is one visit.
        :raises ValueError: if the lengths or the rewards' names do not agree.
        """
        self._check(prompts, completions, outcomes)
        if self._is_lost:
            return
        kept = {
            name: values
            for name, values in columns.items()
            if name not in _OF_THE_TRAINER
            and isinstance(values, list | tuple)
            and len(values) == len(completions)
        }
        asked = [json_text(prompt) for prompt in prompts]
        groups = list(_groups(asked, group_size))
        for index, completion in enumerate(completions):
            own = {name: values[index] for name, values in kept.items()}
            family = own.get("family")
            row: dict[str, Any] = {
                "phase": phase,
                "step": step,
                "group": self._groups + groups[index],
                "prompt": asked[index],
                "completion": json_text(completion),
                "columns": json_text(own),
                "family": None if family in (None, "") else _encodable(str(family)),
                "constraints": [_encodable(id_) for id_ in constraints_of(own)],
                "met": met_by(completion, prompts[index], own),
            }
            for name, given in outcomes.items():
                outcome = given[index]
                is_score = outcome_name(outcome) == "score"
                row[f"score/{name}"] = outcome if is_score else None
                row[f"outcome/{name}"] = outcome_name(outcome)
                row[f"error/{name}"] = _encodable(reason_of(outcome))
            self._rows.append(row)
            if len(self._rows) >= self.rows_at_once:
                self._flush()
        self._groups += 1 + max(groups, default=-1)

    def cut(self) -> dict[str, Any]:
        """Put what was logged since the last time into a file of its own, and say where this is.

        Until :meth:`close` a crash would leave nothing of a file that is being written.
        """
        assert self._parts is not None, "the log was given no folder for parts"
        if self._rows:
            self._flush()
        if self._writer is not None:
            name = f"completions-{len(self._closed):03d}.parquet"
            with writing(self._parts):
                self._parts.mkdir(parents=True, exist_ok=True)
            self._finish(self._parts / name)
            self._closed.append(name)
        return {
            "parts": list(self._closed),
            "groups": self._groups,
            "rewards": list(self._rewards or ()),
        }

    def close(self) -> None:
        """Publish the file; further calls do nothing."""
        if self._rows:
            self._flush()
        if self._closed:
            self._join()
        elif self._writer is not None:
            self._finish(self.path)

    def _finish(self, place: Path) -> None:
        writer, self._writer = self._writer, None
        with self._taking_back(writer):
            writer.close()
            self._temporary.replace(place)

    def _join(self) -> None:
        """Make one file of the parts and of what came after them; the parts stay."""
        assert self._parts is not None
        parquet: Any = importlib.import_module("pyarrow.parquet")
        rest = self.path.with_name(f".{self.path.name}.rest.tmp")
        with self._taking_back(None):
            pieces = [self._parts / name for name in self._closed]
            if self._writer is not None:
                self._finish(rest)
                pieces.append(rest)
            files = [parquet.ParquetFile(piece) for piece in pieces]
            joined = parquet.ParquetWriter(
                self._temporary, files[0].schema_arrow, compression="zstd"
            )
            for file in files:
                for index in range(file.num_row_groups):
                    joined.write_table(file.read_row_group(index))
                file.close()
            joined.close()
            self._temporary.replace(self.path)
            rest.unlink(missing_ok=True)
        self._closed = []

    def __enter__(self) -> RolloutLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except RisenError as failure:
            if error is None:
                raise
            _log.warning("%s", failure)  # what stopped the phase matters more

    def _check(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        outcomes: Mapping[str, Sequence[Outcome]],
    ) -> None:
        lengths = {"prompts": len(prompts)} | {name: len(of) for name, of in outcomes.items()}
        for name, length in lengths.items():
            if length != len(completions):
                raise ValueError(f"{length} of '{name}' for {len(completions)} completions")
        if self._rewards is None:
            self._rewards = tuple(outcomes)
        if set(self._rewards) != set(outcomes):
            raise ValueError(
                f"a batch of the rewards {', '.join(outcomes)} in a log of "
                f"{', '.join(self._rewards)}"
            )

    def _flush(self) -> None:
        arrow: Any = importlib.import_module("pyarrow")
        fields = {**_OURS, **_DERIVED}
        for name in self._rewards or ():
            fields |= {f"{part}/{name}": kind for part, kind in _OF_A_REWARD.items()}
        listed = {"strings": arrow.list_(arrow.string()), "bools": arrow.list_(arrow.bool_())}
        schema = arrow.schema(
            [(name, listed.get(kind) or getattr(arrow, kind)()) for name, kind in fields.items()]
        )
        with self._taking_back(self._writer):
            if self._writer is None:
                parquet: Any = importlib.import_module("pyarrow.parquet")
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = parquet.ParquetWriter(self._temporary, schema, compression="zstd")
            self._writer.write_table(arrow.Table.from_pylist(self._rows, schema=schema))
        self._rows = []

    @contextmanager
    def _taking_back(self, writer: Any) -> Iterator[None]:
        """Leave no torn file where the place takes no more."""
        try:
            with writing(self.path.parent):
                yield
        except RecordError:
            self._is_lost, self._rows = True, []
            writer, self._writer = writer or self._writer, None
            if writer is not None:
                with suppress(Exception):  # it still tries to write its footer
                    writer.close()
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            raise


def _groups(prompts: Sequence[str], size: int | None) -> Iterator[int]:
    """The number of the visit that each answer belongs to, from 0."""
    number = -1
    for index, prompt in enumerate(prompts):
        starts = index % size == 0 if size else index == 0 or prompt != prompts[index - 1]
        number += starts
        yield number


def _encodable(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="replace").decode()


# Reading


@dataclass(frozen=True, slots=True)
class Rollout:
    """One logged answer.

    :param where: its file and row, for messages.
    :param group: the same for the answers of one visit of a prompt; numbered within the phase.
    :param columns: the row's other columns.
    :param outcomes: what each reward made of it, by the reward's name.
    """

    where: str
    phase: int
    step: int
    group: int
    prompt: Any
    completion: Completion
    columns: Mapping[str, Any]
    outcomes: Mapping[str, Outcome]


def read_rollouts(place: str | Path, *, phase: int | None = None) -> Iterator[Rollout]:
    """The logged answers of a run's output folder, a phase's folder or one file, as a stream.

    Phases come in order, and the answers of a group side by side. Memory holds one row group.

    :param phase: only the phase with this number.
    :raises DataError: at once, if there is no such log or it is none of ours; while reading, if
        it is damaged.
    """
    opened = [(path, _open(path)) for path in rollout_files(place, phase=phase)]
    return (rollout for path, file in opened for rollout in _read(path, file))


def rollout_files(place: str | Path, *, phase: int | None = None) -> list[Path]:
    """The logs under a run's output folder, its ``risen`` folder or a phase's folder, in order.

    :raises DataError: if there are none.
    """
    place = Path(place)
    if place.is_file():
        found = [place]
    elif not place.exists():
        raise DataError(f"there is no run or rollout log '{place}'{_beside(place)}")
    elif (place / FILE).is_file():
        found = [place / FILE]
    else:
        logs = [log for inner in (place / FOLDER, place) for log in inner.glob(f"phase-*/{FILE}")]
        found = sorted(logs, key=lambda log: (len(log.parent.name), log.parent.name))
        if not found:
            raise DataError(
                f"'{place}' has no rollouts: there is no {FOLDER}/phase-NNN/{FILE} in it; give the "
                "output folder of a run that has finished a RISEN phase"
            )
    if phase is None:
        return found
    wanted = [path for path in found if path.parent.name == f"phase-{phase:03d}"]
    if not wanted:
        have = ", ".join(path.parent.name for path in found)
        raise DataError(f"'{place}' has no rollouts of phase {phase}; it has: {have}")
    return wanted


def logged_rewards(place: str | Path, *, phase: int | None = None) -> tuple[str, ...]:
    """The names of the rewards that answers were logged with, in the order of the log.

    :raises DataError: as :func:`read_rollouts`.
    """
    names: dict[str, None] = {}
    for path in rollout_files(place, phase=phase):
        names |= dict.fromkeys(_rewards_of(_open(path).schema_arrow.names))
    return tuple(names)


def _open(path: Path) -> Any:
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"'{path}' is no rollout log: {reason}") from error
    names = file.schema_arrow.names
    lacking = [name for name in _OURS if name not in names]
    if lacking:
        raise DataError(
            f"'{path}' is no rollout log: it lacks the column '{lacking[0]}'"
            f"{near_miss(lacking[0], names) or '.'} It has: {', '.join(names) or 'none'}"
        )
    for name in _rewards_of(names):
        for part in _OF_A_REWARD:
            if f"{part}/{name}" not in names:
                raise DataError(
                    f"'{path}' is no rollout log: it lacks the column '{part}/{name}' beside "
                    f"'outcome/{name}'"
                )
    return file


def _rewards_of(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("outcome/") for name in names if name.startswith("outcome/")]


def _read(path: Path, file: Any) -> Iterator[Rollout]:
    rewards = _rewards_of(file.schema_arrow.names)
    number = 0
    for index in range(file.num_row_groups):
        try:
            rows = file.read_row_group(index).to_pylist()
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read '{path}': {' '.join(str(error).split())}") from error
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
                    {name: _outcome(row, name) for name in rewards},
                )
            except (TypeError, ValueError) as error:
                raise DataError(f"{where} is damaged: {' '.join(str(error).split())}") from error
            yield rollout


def _outcome(row: Mapping[str, Any], name: str) -> Outcome:
    told = row[f"outcome/{name}"]
    if told == "error":
        return Failed(row[f"error/{name}"] or "no reason was logged")
    return float(row[f"score/{name}"]) if told == "score" else None


def _beside(place: Path) -> str:
    if not place.parent.is_dir():
        return f"; there is no folder '{place.parent}' either"
    return near_miss(place.name, [other.name for other in place.parent.iterdir()])
