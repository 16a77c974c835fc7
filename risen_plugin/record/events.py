"""The events of a run's record, one class each, and how a line of ``events.jsonl`` becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from risen_plugin.contracts import PhaseRecord
from risen_plugin.errors import DataError
from risen_plugin.kit.json_lines import Line
from risen_plugin.kit.jsonable import MOST_COUNTED, as_number, as_seconds

_KINDS = ("fine_tune", "risen", "burst")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run.

    :param step: the outer run's.
    :param time: seconds of the run; None where a record has none.
    """

    name: ClassVar[str]
    step: int
    time: float | None = None

    @property
    def at(self) -> float:
        """When it happened, in seconds of the run; 0 where that is not known."""
        return self.time or 0.0


@dataclass(frozen=True, kw_only=True)
class LogEvent(Event):
    """The outer Trainer logged."""

    name: ClassVar[str] = "log"
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationEvent(Event):
    """The outer Trainer evaluated; ``metrics`` holds the numbers of it."""

    name: ClassVar[str] = "evaluation"
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class DecisionEvent(Event):
    """A phase begins, or fine-tuning goes on for another reason; ``phase`` is its kind."""

    name: ClassVar[str] = "decision"
    number: int = 0
    phase: str | None = None
    steps: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class GuardEvent(Event):
    """The guard measured a phase.

    :param when: ``before``, ``during`` or ``after`` it.
    :param intervals: by name, the change since phase entry and its ends.
    :param strength: the share of the trained change that was measured; None for all of it.
    """

    name: ClassVar[str] = "guard"
    number: int = 0
    when: str = ""
    grpo_step: int | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    intervals: Mapping[str, Any] = field(default_factory=dict)
    action: str = ""
    reason: str = ""
    strength: float | None = None


@dataclass(frozen=True, kw_only=True)
class ControlEvent(Event):
    """GRPO logged ``numbers`` for its step ``grpo_step``."""

    name: ClassVar[str] = "control"
    number: int = 0
    grpo_step: float = 0.0
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PhaseEvent(Event):
    """A phase has ended; ``parameters`` are those that its scheduler chose for it."""

    name: ClassVar[str] = "phase"
    number: int = 0
    kind: str
    steps: int
    accepted: bool | None = None
    reason: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> PhaseRecord:
        """The phase as schedulers know it."""
        return PhaseRecord(
            self.kind,  # type: ignore[arg-type]  # one of the kinds, checked where it was read
            self.steps,
            self.step,
            self.reason,
            self.accepted,
            self.metrics,
        )


@dataclass(frozen=True, kw_only=True)
class PluginErrorEvent(Event):
    """A plugin failed; ``plugin`` is None where a phase did."""

    name: ClassVar[str] = "plugin_error"
    number: int | None = None
    plugin: str | None = None
    reason: str = ""
    count: int | None = None


def event_in(line: Line) -> Event | None:
    """The event in a line; None for one that this release does not know, such as a plugin's.

    :raises DataError: naming the line, if it holds no event or a broken one.
    """
    data = line.value()
    where = f"{line.name}, line {line.number}"
    if not isinstance(data, Mapping) or not isinstance(data.get("event"), str):
        raise DataError(f"{where} is no event: it is an object with 'event' and 'step'")
    return event_of(data, where)


def event_of(data: Mapping[str, Any], where: str) -> Event | None:
    """The event that is recorded as ``data``; None for one of an unknown name.

    :param where: its place, for messages.
    :raises DataError: if it is a broken one.
    """
    read = _READERS.get(str(data["event"]))
    if read is None:
        return None
    where = f"{where}: {data['event']}"
    step = data.get("step")
    if not _is_count(step):
        raise DataError(f"{where} has the step {step!r}; it is a whole number from 0 to 10**15")
    return read(data, where, {"step": step, "time": as_seconds(data.get("time"))})


def _log(data: Mapping[str, Any], where: str, when: Mapping[str, Any]) -> Event:
    loss = data.get("loss")
    if loss is not None and not _is_number(loss):
        raise DataError(f"{where} has the loss {loss!r}; it is a number")
    return LogEvent(**when, loss=None if loss is None else float(loss))


def _evaluation(data: Mapping[str, Any], where: str, when: Mapping[str, Any]) -> Event:
    metrics = data.get("metrics")
    if not isinstance(metrics, Mapping):
        raise DataError(f"{where} has no metrics; they are an object of names and numbers")
    numbers = {str(name): float(value) for name, value in metrics.items() if _is_number(value)}
    return EvaluationEvent(**when, metrics=numbers)


def _decision(data: Mapping[str, Any], where: str, when: Mapping[str, Any]) -> Event:
    phase = data.get("phase")
    return DecisionEvent(
        **when,
        number=_count(data, "number"),
        phase=None if phase is None else str(phase),
        steps=_count(data, "steps"),
        reason=_text(data, "reason"),
    )


def _guard(data: Mapping[str, Any], where: str, when: Mapping[str, Any]) -> Event:
    step = data.get("grpo_step")
    return GuardEvent(
        **when,
        number=_count(data, "number"),
        when=_text(data, "when"),
        grpo_step=step if _is_count(step) else None,
        measured=_mapping(data, "measured"),
        intervals=_mapping(data, "intervals"),
        action=_text(data, "action"),
        reason=_text(data, "reason"),
        strength=as_number(data.get("strength")),
    )


def _control(data: Mapping[str, Any], where: str, when: Mapping[str, Any]) -> Event:
    return ControlEvent(
        **when,
        number=_count(data, "number"),
        grpo_step=as_number(data.get("grpo_step")) or 0.0,
        numbers=data,
    )


def _phase(data: Mapping[str, Any], where: str, when: Mapping[str, Any]) -> Event:
    kind, accepted = data.get("kind"), data.get("accepted")
    steps: Any = data.get("steps")
    metrics = data.get("metrics") or {}
    if kind not in _KINDS:
        raise DataError(f"{where} is of the kind {kind!r}; there are fine_tune, risen and burst")
    if not _is_count(steps):
        raise DataError(f"{where} has {steps!r} steps; they are a whole number from 0 to 10**15")
    if not isinstance(metrics, Mapping):
        raise DataError(f"{where} has metrics that are no object of names and values")
    return PhaseEvent(
        **when,
        number=_count(data, "number"),
        kind=kind,
        steps=steps,
        accepted=accepted if isinstance(accepted, bool) else None,
        reason=_text(data, "reason"),
        metrics=metrics,
        parameters=_mapping(data, "parameters"),
    )


def _plugin_error(data: Mapping[str, Any], where: str, when: Mapping[str, Any]) -> Event:
    number, plugin, count = data.get("number"), data.get("plugin"), data.get("count")
    return PluginErrorEvent(
        **when,
        number=number if _is_count(number) else None,
        plugin=None if plugin is None else str(plugin),
        reason=_text(data, "reason"),
        count=count if _is_count(count) else None,
    )


_READERS = {
    "log": _log,
    "evaluation": _evaluation,
    "decision": _decision,
    "guard": _guard,
    "control": _control,
    "phase": _phase,
    "plugin_error": _plugin_error,
}


def _is_number(value: object) -> bool:
    """Whether it is a number, NaN and infinity included, that a float can hold."""
    return isinstance(value, float) or as_number(value) is not None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNTED


def _count(data: Mapping[str, Any], name: str) -> int:
    value: Any = data.get(name)
    return int(value) if _is_count(value) else 0


def _text(data: Mapping[str, Any], name: str) -> str:
    return str(data.get(name) or "")


def _mapping(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, Mapping) else {}
