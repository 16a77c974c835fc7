"""Log every answer that a phase samples: one Parquet file per phase, a row per answer.

The columns of such a file are named here, for its reader too.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from risen_plugin.constraints.judging import constraints_of, met_by
from risen_plugin.contracts import Failed
from risen_plugin.errors import RecordError, RisenError
from risen_plugin.kit.files import put
from risen_plugin.kit.jsonable import json_text
from risen_plugin.record.run_record import writing
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.scores import Score, kind_of

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

ROWS_AT_ONCE = 1024
_log = logging.getLogger("risen_plugin")


class RolloutLog:
    """Logs the answers of one phase to ``path``.

    The file appears, whole, at :meth:`close`; also when the phase failed, since the answers
    until then are evidence. A log without answers leaves no file, and neither does one that did not
    fit on the disk: later answers are dropped. Memory holds one row group.

    :param path: the file to be; one that is there is replaced.
    :param rows_at_once: answers per row group.
    :param parts: the folder where :meth:`cut` puts the answers so far.
    :param position: the position from :meth:`cut`, to go on from there.
    :raises RecordError: from each method, where nothing can be written.

    ::

        with RolloutLog(folder / "completions.parquet") as log:
            scores = {"constraints": [0.5, None, Failed("timed out")]}
            log.add(Batch(1, prompts, completions, columns, scores), phase=1)
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
        self._writer: ParquetWriter | None = None
        self._is_lost = False
        self._parts = parts
        self._closed: list[str] = []
        if position is not None:
            self._closed = list(position["parts"])
            self._groups = position["groups"]
            self._rewards = tuple(position["rewards"]) if position["rewards"] else None

    def add(self, batch: Batch, *, phase: int) -> None:
        """Log a batch of answers, with the columns of their rows; the same rewards each time.

        :param phase: the phase's number.
        :raises ValueError: if the lengths or the rewards' names do not agree.
        """
        self._check(batch)
        if self._is_lost:
            return
        ids = batch.columns.get("completion_ids")
        for number, group in enumerate(batch.groups, start=self._groups):
            for index in group:
                completion, row = batch.completions[index], dict(batch.rows[index])
                prompt = row.pop("prompt")
                family = row.get("family")
                line: dict[str, Any] = {
                    "phase": phase,
                    "step": batch.step,
                    "group": number,
                    "prompt": json_text(prompt),
                    "completion": json_text(completion),
                    "columns": json_text(row),
                    "family": None if family in (None, "") else _encodable(str(family)),
                    "constraints": [_encodable(id_) for id_ in constraints_of(row)],
                    "met": met_by(completion, prompt, row),
                    "completion_ids": None if ids is None else list(map(int, ids[index])),
                }
                for name, scores in batch.scores.items():
                    line |= _of_a_reward(name, scores[index])
                self._rows.append(line)
                if len(self._rows) >= self.rows_at_once:
                    self._flush()
        self._groups += len(batch.groups)

    def cut(self) -> dict[str, Any]:
        """Put the answers since the last cut into a file of their own; returns the position.

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

    def _finish(self, path: Path) -> None:
        assert self._writer is not None
        writer, self._writer = self._writer, None
        with self._taking_back(writer):
            writer.close()
            put(self._temporary, path)

    def _join(self) -> None:
        """Join the parts and the answers after them in one file; the parts stay."""
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
            put(self._temporary, self.path)
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
            _log.warning("%s", failure)  # the error that stopped the phase matters more

    def _check(self, batch: Batch) -> None:
        lengths = {"prompts": len(batch.prompts)}
        lengths |= {name: len(scores) for name, scores in batch.scores.items()}
        for name, length in lengths.items():
            if length != len(batch):
                raise ValueError(f"{length} of '{name}' for {len(batch)} completions")
        if self._rewards is None:
            self._rewards = tuple(batch.scores)
        if set(self._rewards) != set(batch.scores):
            raise ValueError(
                f"a batch of the rewards {', '.join(batch.scores)} in a log of "
                f"{', '.join(self._rewards)}"
            )

    def _flush(self) -> None:
        arrow: Any = importlib.import_module("pyarrow")
        fields = {**COLUMNS, **DERIVED}
        for name in self._rewards or ():
            fields |= {f"{part}/{name}": kind for part, kind in OF_A_REWARD.items()}
        listed = {
            "strings": arrow.list_(arrow.string()),
            "bools": arrow.list_(arrow.bool_()),
            "ints": arrow.list_(arrow.int32()),
        }
        schema = arrow.schema(
            [(name, listed.get(kind) or getattr(arrow, kind)()) for name, kind in fields.items()]
        )
        with self._taking_back(self._writer):
            if self._writer is None:
                parquet: Any = importlib.import_module("pyarrow.parquet")
                self.path.parent.mkdir(parents=True, exist_ok=True)
                new: ParquetWriter = parquet.ParquetWriter(
                    self._temporary, schema, compression="zstd"
                )
                self._writer = new
            self._writer.write_table(arrow.Table.from_pylist(self._rows, schema=schema))
        self._rows = []

    @contextmanager
    def _taking_back(self, writer: ParquetWriter | None) -> Iterator[None]:
        """Leave no torn file where nothing can be written."""
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


def _of_a_reward(name: str, score: Score) -> dict[str, Any]:
    kind = kind_of(score)
    return {
        f"score/{name}": score if kind == "score" else None,
        f"outcome/{name}": kind,
        f"error/{name}": _encodable(reason_of(score)),
    }


def _encodable(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="replace").decode()


FILE = "completions.parquet"
COLUMNS = {
    "phase": "int32",
    "step": "int32",
    "group": "int64",
    "prompt": "string",
    "completion": "string",
    "columns": "string",
}
DERIVED = {"family": "string", "constraints": "strings", "met": "bools", "completion_ids": "ints"}
"""Columns for readers of Parquet: made of others, and the answers' tokens; logs may lack them."""
OF_A_REWARD = {"score": "float64", "outcome": "string", "error": "string"}


def reason_of(score: Score) -> str | None:
    """Why there is no score where that is an error; None otherwise."""
    if kind_of(score) != "error":
        return None
    return score.reason if isinstance(score, Failed) else f"the score is {score}"
