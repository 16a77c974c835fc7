"""Sum up every answer that a run sampled, and choose the best and worst ones to show.

Reads the numbers of all answers, and the texts of those that are shown alone. pyarrow and numpy are
loaded when a log is read.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_plugin.contracts import text_of
from risen_plugin.errors import DataError, one_line
from risen_plugin.record.rollouts import DAMAGE, open_log, rollout_files

if TYPE_CHECKING:
    import numpy.typing as npt

BINS = 20
PER_GROUP = 40
"""Best and worst answers that are shown of each phase, reward and family."""
MOST = 2000
LONGEST = 1200  # characters of a prompt or an answer that are shown
_FULL = ("prompt", "completion", "constraints", "met", "family")


@dataclass(frozen=True)
class Scores:
    """The scores of one reward for the answers of one phase.

    :param counts: how many scores lie in each of ``BINS`` equal bins between ``low`` and ``high``.
    """

    phase: int
    mean: float
    low: float
    high: float
    counts: Sequence[int]
    abstained: int
    errors: int
    answers: int


@dataclass(frozen=True)
class Shown:
    """One answer that is shown; texts are cut to ``LONGEST`` characters.

    :param total: the weighted sum of the scores; None if there is none.
    :param scores: by reward; a text is the reason of an error, None an abstention.
    :param met: by constraint, in the row's order; None where that was not checked.
    """

    phase: int
    step: int
    family: str
    prompt: str
    completion: str
    total: float | None
    scores: Mapping[str, float | str | None]
    met: Sequence[tuple[str, bool | None]] = ()


@dataclass(frozen=True)
class Answers:
    """A summary of all sampled answers.

    :param by_reward: per reward, one entry per phase.
    :param unread: logs that could not be read, with the reason.
    """

    count: int = 0
    by_phase: Mapping[int, int] = field(default_factory=dict)
    by_reward: Mapping[str, Sequence[Scores]] = field(default_factory=dict)
    shown: Sequence[Shown] = ()
    unread: Sequence[str] = ()


def read_answers(
    folder: Path,
    weights: Mapping[str, float],
    *,
    per_group: int = PER_GROUP,
    most: int = MOST,
) -> Answers:
    """Sum up the logs under a run's folder. A run that has logged nothing has no answers.

    :param weights: of the rewards in the sum that answers are ordered by; 1 for others.
    """
    try:
        files = rollout_files(folder)
    except DataError:
        return Answers()
    share = max(1, most // len(files))
    numbers: list[_Table] = []
    shown: list[Shown] = []
    unread: list[str] = []
    for path in files:
        try:
            table = _numbers(path)
            totals = table.totals(weights)
            shown += list(_shown(path, table, table.choose(totals, per_group, share), totals))
            numbers.append(table)
        except DataError as error:
            unread.append(str(error))
        except (*DAMAGE, MemoryError) as error:
            unread.append(f"{path}: {one_line(error)}")
    return Answers(
        sum(table.rows for table in numbers),
        {table.phase: table.rows for table in numbers},
        _by_reward(numbers),
        shown,
        unread,
    )


def _by_reward(tables: Sequence[_Table]) -> Mapping[str, Sequence[Scores]]:
    """The scores of each reward by phase, in bins that are the same for all phases."""
    by_reward: dict[str, list[Scores]] = {}
    for reward in dict.fromkeys(name for table in tables for name in table.rewards):
        scored = [table for table in tables if reward in table.rewards]
        lows, highs = zip(*(table.bounds(reward) for table in scored), strict=True)
        by_reward[reward] = [table.scores(reward, min(lows), max(highs)) for table in scored]
    return by_reward


class _Table:
    """The numbers of one phase's log, as arrays with one entry per answer."""

    def __init__(self, columns: Mapping[str, npt.NDArray[Any]], rows: int) -> None:
        self.np: Any = importlib.import_module("numpy")
        self.columns = columns
        self.rows = rows
        self.rewards = [name[6:] for name in columns if name.startswith("score/")]
        self.phase = int(columns["phase"][0]) if rows else 0

    def bounds(self, reward: str) -> tuple[float, float]:
        scores = self._sound(reward)
        return (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)

    def scores(self, reward: str, low: float, high: float) -> Scores:
        scores = self._sound(reward)
        outcomes = self.columns[f"outcome/{reward}"]
        width = high if high > low else low + 1.0
        counts, _ = self.np.histogram(scores, bins=BINS, range=(low, width))
        return Scores(
            self.phase,
            float(scores.mean()) if len(scores) else float("nan"),
            low,
            width,
            [int(count) for count in counts],
            int((outcomes == "abstain").sum()),
            int((outcomes == "error").sum()),
            self.rows,
        )

    def totals(self, weights: Mapping[str, float]) -> npt.NDArray[Any]:
        """The weighted sum of the scores of each answer; NaN where there is none."""
        total = self.np.zeros(self.rows)
        is_scored = self.np.zeros(self.rows, dtype=bool)
        for reward in self.rewards:
            scores = self.columns[f"score/{reward}"]
            there = self.np.isfinite(scores)
            total += self.np.where(there, scores, 0.0) * weights.get(reward, 1.0)
            is_scored |= there
        totals: npt.NDArray[Any] = self.np.where(is_scored, total, self.np.nan)
        return totals

    def choose(self, totals: npt.NDArray[Any], per_group: int, most: int) -> list[int]:
        """Rows to show: the best and worst of all, by each reward and in each family, in turn."""
        np = self.np
        # Equal answers come in a random order with a fixed seed, so that not only early ones show.
        drawn = np.random.default_rng(0).permutation(self.rows)
        rankings = [self._ends(totals, drawn, per_group)]
        rankings += [
            self._ends(self.columns[f"score/{name}"], drawn, per_group) for name in self.rewards
        ]
        families = self.columns.get("family")
        if families is not None:
            for family in sorted({str(name) for name in families if name is not None}):
                within = np.where(families == family, totals, np.nan)
                rankings.append(self._ends(within, drawn, per_group))
        for name in self.rewards:
            failed = np.flatnonzero(self.columns[f"outcome/{name}"] == "error")
            rankings.append([int(row) for row in failed[:per_group]])
        if self.rows <= most:
            return list(range(self.rows))
        chosen: dict[int, None] = {}
        for turn in range(2 * per_group):
            for ranking in rankings:
                if turn < len(ranking) and len(chosen) < most:
                    chosen[ranking[turn]] = None
        return sorted(chosen)

    def _ends(self, values: npt.NDArray[Any], drawn: npt.NDArray[Any], count: int) -> list[int]:
        """The best and worst rows in turn; those without a value are left out."""
        np = self.np
        order = np.lexsort((drawn, values))  # NaN comes last
        order = order[: int(np.isfinite(values).sum())]
        low, high = order[:count], order[::-1][:count]
        return [int(row) for pair in zip(high, low, strict=True) for row in pair]

    def _sound(self, reward: str) -> npt.NDArray[Any]:
        scores = self.columns[f"score/{reward}"]
        sound: npt.NDArray[Any] = scores[self.np.isfinite(scores)]
        return sound


def _numbers(path: Path) -> _Table:
    """:raises DataError: if it is no log.

    :raises ValueError: if it cannot be read; pyarrow's own errors are ValueErrors.
    """
    np: Any = importlib.import_module("numpy")
    file = open_log(path)
    names = file.schema_arrow.names
    wanted = [
        name
        for name in names
        if name in ("phase", "step", "family") or name.startswith(("score/", "outcome/"))
    ]
    table = file.read(columns=wanted)
    for name in wanted:
        if name != "family" and not name.startswith("score/") and table.column(name).null_count:
            raise DataError(f"{path}: there are rows without '{name}'")
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in wanted:
        column = table.column(name)
        if name.startswith("score/"):
            columns[name] = column.to_numpy().astype(float)  # null becomes NaN
        elif name.startswith("outcome/") or name == "family":
            columns[name] = np.array(column.to_pylist(), dtype=object)
        else:
            columns[name] = column.to_numpy()
    return _Table(columns, table.num_rows)


def _shown(
    path: Path, table: _Table, chosen: Sequence[int], totals: npt.NDArray[Any]
) -> Iterable[Shown]:
    file = open_log(path)
    names = [
        name
        for name in file.schema_arrow.names
        if name in _FULL or name.startswith(("outcome/", "error/"))
    ]
    texts = file.read(columns=names).take(list(chosen)).to_pylist()
    for row, text in zip(chosen, texts, strict=True):
        total = float(totals[row])
        yield Shown(
            int(table.columns["phase"][row]),
            int(table.columns["step"][row]),
            str(text.get("family") or ""),
            _cut(_text_in(text["prompt"])),
            _cut(_text_in(text["completion"])),
            total if total == total else None,  # noqa: PLR0124  NaN is not itself
            {name: _outcome(table, text, name, row) for name in table.rewards},
            _met(text),
        )


def _outcome(table: _Table, text: Mapping[str, Any], reward: str, row: int) -> float | str | None:
    outcome = text.get(f"outcome/{reward}")
    if outcome == "error":
        return str(text.get(f"error/{reward}") or "no reason was logged")[:LONGEST]
    return float(table.columns[f"score/{reward}"][row]) if outcome == "score" else None


def _met(text: Mapping[str, Any]) -> Sequence[tuple[str, bool | None]]:
    ids = text.get("constraints") or []
    met = text.get("met") or [None] * len(ids)
    return tuple(zip(map(str, ids), met, strict=False))


def _text_in(logged: str) -> str:
    """The text of a logged prompt or completion."""
    try:
        value = json.loads(logged)
    except (ValueError, RecursionError):
        return str(logged)
    if isinstance(value, str):
        return value
    try:
        return text_of(value)
    except (AttributeError, TypeError, LookupError):
        return str(logged)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
