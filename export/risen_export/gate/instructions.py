"""The instructions that graphs are held to, and the rewards that say whether one is followed.

They are those of a run's record, or of the gate's settings. A reward of a record is made again only
where an installed plugin offers it: code at a place that a record names is not run, since a record
may be somebody else's. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from risen_export.gate.settings import MOST_TOKENS, GateSettings
from risen_plugin.config.choices import Grading, Use, Weighted, as_named
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, DataError, RisenError
from risen_plugin.instructions.rows import check_by_rewards, check_columns, check_row, load_probe
from risen_plugin.kit.jsonable import plain
from risen_plugin.record.held_out import SETS, read_held_out
from risen_plugin.record.reading import read_description
from risen_plugin.record.run_record import FOLDER
from risen_plugin.rewards.calling import NamedReward, wrap


@dataclass(frozen=True)
class Judge:
    """One reward that answers are judged by.

    :param made_by: ``{use: NAME, options: {...}}``, how it is made again; None for an object.
    :param origin: the distribution and version, or the module, that it came from.
    """

    reward: NamedReward
    made_by: Mapping[str, Any] | None
    origin: str


@dataclass(frozen=True)
class Instructions:
    """What graphs are held to.

    :param rows: each with a prompt and the columns that the rewards need.
    :param max_new_tokens: most tokens of an answer.
    """

    rows: Sequence[Row]
    judges: Sequence[Judge]
    max_new_tokens: int = MOST_TOKENS

    @property
    def rewards(self) -> list[NamedReward]:
        """The rewards of all judges."""
        return [judge.reward for judge in self.judges]


def gather(
    settings: GateSettings, run: Path | None, *, apart: bool = False
) -> tuple[Instructions | None, tuple[str, ...]]:
    """The instructions to ask, and notes on what was left out; None where there are none.

    :param run: the output folder of the run that the model comes from, if it comes from one.
    :param apart: whether adapters stay apart, so that the graphs are those of their base.
    :raises RisenError: for rows or rewards of the settings that cannot be used. What is wrong with
        a record is a note.
    """
    has_own = settings.instructions is not None or bool(settings.rewards)
    if not settings.count or (run is None and not has_own):
        return None, ()
    if apart:
        return None, ("adherence was not measured: the adapters are kept apart from the graphs",)
    judges = _given(settings.rewards)
    rows = [] if settings.instructions is None else _rows(settings.instructions)
    if run is None or (rows and judges):
        _check_whole(rows, judges)
        tokens = settings.tokens or MOST_TOKENS
        return Instructions(_judged(rows, judges)[: settings.count], judges, tokens), ()
    notes: list[str] = []
    try:
        record = read_description(run / FOLDER)
        judges = judges or list(_recorded(record, notes))
        rows = _judged(rows, judges) if rows else _held_out(run / FOLDER, notes)
    except DataError as error:
        if rows:
            raise
        return None, (f"adherence was not measured: {error}",)
    if not any(judge.reward.grading.graded for judge in judges):
        return None, (*notes, "adherence was not measured: no reward of the run can be made again")
    tokens = settings.tokens or _tokens(record)
    return Instructions(rows[: settings.count], judges, tokens), tuple(notes)


# Of the settings


def _check_whole(rows: Sequence[Row], judges: Sequence[Judge]) -> None:
    given, lacking = ("instructions", "rewards") if rows else ("rewards", "instructions")
    if not rows or not judges:
        raise ConfigError(
            f"the gate has {given} and no {lacking}, and the model comes from no run that has "
            f"some; give it {lacking}"
        )


def _judged(rows: list[Row], judges: Sequence[Judge]) -> list[Row]:
    """The rows, where they have the columns that the rewards need."""
    rewards = [judge.reward for judge in judges]
    check_columns(rows, rewards, "the gate's instructions", generated=False)
    check_by_rewards(rows, rewards, "the gate's instructions")
    return rows


def _given(rewards: Sequence[Any]) -> list[Judge]:
    from risen_plugin.plugins import Plugins
    from risen_plugin.plugins.lookup import look_up

    plugins = Plugins.load() if rewards else None
    judges: dict[str, Judge] = {}
    for wanted in rewards:
        assert plugins is not None
        settings = wanted if isinstance(wanted, Use | Weighted) else Weighted(wanted)
        target = wanted.reward if isinstance(wanted, Weighted) else wanted
        built = look_up(plugins, "reward", target)
        if built.name in judges:
            raise ConfigError(f"two rewards of the gate are called '{built.name}'; leave one out")
        reward = wrap(built.value, built.name, built.label, _skipping(settings.grading))
        judges[built.name] = Judge(reward, as_named(wanted), built.origin)
    if judges and not any(judge.reward.grading.graded for judge in judges.values()):
        raise ConfigError("no reward of the gate is graded, so adherence cannot be measured")
    return list(judges.values())


def _rows(source: str | Path | Sequence[Row]) -> list[Row]:
    label = str(source) if isinstance(source, str | Path) else "the gate's instructions"
    rows: list[Any] = load_probe(source, "the gate's instructions")
    if not rows:
        raise DataError(f"{label} has no rows; give it some, or leave it out")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{label} has {row!r:.60} as row {index}; a row has a prompt")
        check_row(row, f"{label} has row {index}")
        try:
            plain(row, f"row {index}")
        except TypeError as error:
            raise DataError(f"{label}: {error}; the bundle keeps rows as JSON") from error
    return rows


# Of a record


def _held_out(folder: Path, notes: list[str]) -> list[Row]:
    found = read_held_out(folder)
    if found is None:
        raise DataError(
            f"the record in {folder.parent} has no held-out instructions; an earlier release "
            "wrote it"
        )
    rows = [row for name in SETS for row in found.rows[name]]
    for index, row in enumerate(rows):
        check_row(row, f"the record in {folder.parent} has row {index}")
    if found.left_out:
        notes.append(f"{found.left_out} held-out instructions of the run are no JSON: not asked")
    if not rows:
        raise DataError(f"the record in {folder.parent} has no held-out instructions")
    return rows


def _tokens(record: Mapping[str, Any]) -> int:
    grpo = record.get("grpo")
    allowed = grpo.get("max_completion_length") if isinstance(grpo, Mapping) else None
    if not isinstance(allowed, int) or isinstance(allowed, bool) or allowed < 1:
        return MOST_TOKENS
    return min(allowed, MOST_TOKENS)


def _recorded(record: Mapping[str, Any], notes: list[str]) -> Iterator[Judge]:
    entries = record.get("rewards")
    if not isinstance(entries, list) or not all(isinstance(one, Mapping) for one in entries):
        raise DataError("the run's record lists no rewards")
    if entries and not any("named" in one for one in entries):
        raise DataError(
            "the run's record does not say how its rewards are made; an earlier release wrote it"
        )
    for entry in entries:
        if entry.get("graded") is False:
            continue
        name = str(entry.get("name"))
        try:
            yield made_again(name, entry.get("named"), entry)
        except RisenError as error:
            notes.append(f"adherence is measured without reward '{name}': {error}")


def made_again(name: str, made_by: object, grading: Mapping[str, Any]) -> Judge:
    """A reward as a record describes it, from the plugins that are installed here.

    :param made_by: ``{use: NAME, options: {...}}``.
    :param grading: its fields of :class:`risen_plugin.config.choices.Grading`.
    :raises RisenError: if it cannot be made, or asks other machines.
    """
    from risen_plugin.plugins import Plugins
    from risen_plugin.plugins.lookup import OnlyOffers, look_up

    if not isinstance(made_by, Mapping):
        raise ConfigError("it is an object of Python; name it under rewards of --gate FILE")
    named = Use(made_by.get("use", ""), made_by.get("options") or {})
    if _has_address(named.options):
        raise ConfigError("it asks another machine")
    built = look_up(OnlyOffers(Plugins.load()), "reward", named)
    known = [entry.name for entry in fields(Grading)]
    graded = Use(named.name, **{key: grading[key] for key in known if key in grading})
    reward = wrap(built.value, name, built.label, _skipping(graded.grading))
    if reward.is_async:
        raise ConfigError("it asks another machine")
    return Judge(reward, {"use": named.name, "options": named.options}, built.origin)


def _skipping(grading: Grading) -> Grading:
    """A failing reward judges no answer, and does not end the export."""
    return Grading(
        **{
            **{entry.name: getattr(grading, entry.name) for entry in fields(Grading)},
            "on_error": "skip",
        }
    )


def _has_address(value: object) -> bool:
    if isinstance(value, str):
        return "://" in value
    if isinstance(value, Mapping):
        return any(map(_has_address, value.values()))
    return isinstance(value, list) and any(map(_has_address, value))
