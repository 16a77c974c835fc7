"""The thresholds that the guard judged phases by, and what it measured against them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import ADHERENCE, FACTS_LOST, OF_TASK, OF_THE_GUARD, PROBE_LOSS
from risen_plugin.record.reading import Phase, Run

GAIN = "gain"
PROBE_LOSS_RISE = "probe_loss_rise"
_ENDS = {GAIN: ADHERENCE, PROBE_LOSS_RISE: PROBE_LOSS}
_FIELDS = {GAIN: "min_gain", PROBE_LOSS_RISE: "max_probe_loss_rise"}
_CAPTIONS = {
    GAIN: "gain in strict adherence",
    PROBE_LOSS_RISE: "rise of the probe loss, nats per token",
    "domain_drop": "drop of the domain's score",
    "trip_wire_rise": "rise of the trip-wire rate",
    FACTS_LOST: "share of known facts that are lost",
}


@dataclass(frozen=True)
class Amount:
    """What the guard judges of each phase.

    :param name: as the record names it.
    :param is_least: whether a phase must reach the threshold; otherwise it must not exceed it.
    """

    name: str
    caption: str
    is_least: bool = False


def amounts(run: Run) -> list[Amount]:
    """The gain, the rise of the probe loss, and the other harms that have a threshold.

    The forward KL and the gap are drawn with others of their kind.
    """
    guard = _mapping(run.description.get("guard"))
    found = [
        Amount(GAIN, _CAPTIONS[GAIN], True),
        Amount(PROBE_LOSS_RISE, _CAPTIONS[PROBE_LOSS_RISE]),
    ]
    for name in ("domain_drop", "trip_wire_rise", FACTS_LOST):
        if as_number(guard.get(f"max_{name}")) is not None:
            found.append(Amount(name, _CAPTIONS[name]))
    for task, settings in _mapping(guard.get("tasks")).items():
        if as_number(_mapping(settings).get("max_drop")) is not None:
            found.append(Amount(f"{OF_TASK}{task}_drop", f"drop of task {task}"))
    return found


def measured(phase: Phase, name: str) -> tuple[float, float, float] | None:
    """An amount of a phase with its lower and upper end; None if it was not measured.

    The ends are the amount itself where the guard gave none.
    """
    value = phase.number_of(f"{OF_THE_GUARD}{name}")
    if value is None and name in _ENDS:
        before, after = (phase.number_of(f"{_ENDS[name]}_{when}") for when in ("before", "after"))
        value = None if before is None or after is None else after - before
    if value is None:
        return None
    ends = (phase.number_of(f"{OF_THE_GUARD}{name}_{end}") for end in ("low", "high"))
    low, high = (value if end is None else end for end in ends)
    return value, low, high


def limit(run: Run, phase: Phase, name: str) -> float | None:
    """The threshold of an amount in a phase; None if it had none.

    A burst has its own for the gain and the probe loss, which its scheduler may have changed.
    """
    guard = _mapping(run.description.get("guard"))
    field = _FIELDS.get(name)
    if name.startswith(OF_TASK):
        task = name.removeprefix(OF_TASK).removesuffix("_drop")
        return as_number(_mapping(_mapping(guard.get("tasks")).get(task)).get("max_drop"))
    if field is None:
        return as_number(guard.get(f"max_{name}"))
    if phase.kind == "burst":
        own = _mapping(run.description.get("buffers"))
        return as_number(phase.parameters.get(field, own.get(field)))
    return as_number(guard.get(field))


def setting(run: Run, section: str, name: str) -> float | None:
    """A number of the run's configuration; None where it is not set."""
    return as_number(_mapping(run.description.get(section)).get(name))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
