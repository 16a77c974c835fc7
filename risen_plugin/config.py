"""One configuration for a RISEN callback, the same from Python objects and from YAML.

Frozen data; what can be checked without a model or torch is checked here. Fields of TRL's
``GRPOConfig`` are passed through under ``grpo`` and checked when the callback is made.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard

from risen_plugin.errors import ConfigError, near_miss

OnError: TypeAlias = Literal["stop", "skip"]


@dataclass(frozen=True)
class Use:
    """A plugin by name with its options: what YAML and the command line can say.

    :param name: the offered name, or ``plugin/name``.
    :param options: arguments of the offered factory.
    :param weight: weight of a reward in the sum that is reinforced.
    :param passes_at: the score from which a reward counts an answer as adherent.
    :param graded: whether a reward takes part in adherence at all.
    :param on_error: ``stop`` ends the run when a reward raises, is too slow or returns nonsense;
        ``skip`` takes each completion of that call for an error of the reward and goes on.
    :param timeout_s: seconds that one call of a reward may take; None for no limit.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    passes_at: float = 1.0
    graded: bool = True
    on_error: OnError = "stop"
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError(f"the name of a plugin's offer is a text, not {self.name!r}")
        if not isinstance(self.options, Mapping):
            raise ConfigError(
                f"the options of '{self.name}' are a mapping of names to values, "
                f"not {self.options!r}"
            )
        _check_grading(self, f"'{self.name}'")


def use(
    name: str,
    *,
    weight: float = 1.0,
    passes_at: float = 1.0,
    graded: bool = True,
    on_error: OnError = "stop",
    timeout_s: float | None = None,
    **options: Any,
) -> Use:
    """A plugin by name: ``use("length", low=20, high=80, weight=0.5)``."""
    return Use(name, options, weight, passes_at, graded, on_error, timeout_s)


@dataclass(frozen=True)
class Weighted:
    """A reward object with its weight, for use from Python; see :class:`Use` for the fields."""

    reward: Any
    weight: float = 1.0
    passes_at: float = 1.0
    graded: bool = True
    on_error: OnError = "stop"
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        name = getattr(self.reward, "__name__", type(self.reward).__name__)
        _check_grading(self, f"reward '{name}'")


PluginOrName: TypeAlias = Any
"""A plugin object, its offered name, or a :class:`Use` of that name."""


@dataclass(frozen=True)
class GuardConfig:
    """When a phase is kept.

    :param rows: held-out instructions that the guard decides by; they are never trained on.
    :param report_rows: further held-out instructions whose adherence is reported; 0 for none.
    :param min_gain: least gain in strict adherence that pays (share of instructions).
    :param max_probe_loss_rise: largest rise of the probe loss, in nats per token; 0.05 is a rise of
        the perplexity by 5 %, however small it was.
    :param max_gap: the most by which the gain on trained families may exceed the gain on reserved
        ones (share of instructions); None only measures it.
    :param max_trip_wire_rise: the largest rise of the share of answers that trip a wire, such as
        copied placeholders; None only measures it.
    :param probe_rows: probe rows that are measured at the most.
    :param batch_size: rows answered or probed at once.
    """

    rows: int = 64
    report_rows: int = 64
    min_gain: float = 0.01
    max_probe_loss_rise: float = 0.05
    max_gap: float | None = None
    max_trip_wire_rise: float | None = None
    probe_rows: int = 256
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("report_rows", 0), ("probe_rows", 1), ("batch_size", 1)):
            _check_whole(f"guard.{name}", getattr(self, name), least)
        for name in ("min_gain", "max_probe_loss_rise"):
            value = getattr(self, name)
            if not _is_number(value) or math.isnan(value):
                raise ConfigError(f"guard.{name} is {_told(value)}; it is a number")
        for name in ("max_gap", "max_trip_wire_rise"):
            value = getattr(self, name)
            if value is not None and (not _is_number(value) or math.isnan(value)):
                raise ConfigError(f"guard.{name} is {_told(value)}; it is a number, or left out")


@dataclass(frozen=True)
class CurriculumConfig:
    """How instructions are chosen from a pool of those known so far.

    :param initial: instructions asked of the generator before the first draw.
    :param refill: instructions asked of it again, every ``refill_every`` generation batches.
    :param refill_every: generation batches between refills.
    :param largest: the most instructions kept; no more are taken in then.
    :param strata: columns whose values group instructions, the widest group first. What was never
        answered is judged by its group. ``level`` is the number of constraints where a row has no
        such column.
    :param low: with ``high``, the band of pass rates that is worth most.
    :param high: the upper end of it.
    :param optimism: standard deviations by which an uncertain pass rate is taken to be nearer to
        the band.
    :param prior: answers' worth of trust in the group, beside an instruction's own answers.
    :param half_life: generation batches after which an answer counts half.
    :param explore: share of the draws that are uniform over the pool.
    :param skip_base: an instruction whose last ``z`` visits gave no variance is passed over with
        the probability ``1 - max(skip_base ** z, skip_floor)``.
    :param skip_floor: the least probability of asking it all the same.
    :param most_skips: draws passed over per instruction of a batch, at the most.
    :param retire_after: visits without variance in a row after which an instruction is drawn no
        more; None for never.
    :param hindsight: whether a group of answers that all fail adds an instruction with only those
        constraints that its best answer met.
    """

    initial: int = 1024
    refill: int = 64
    refill_every: int = 8
    largest: int = 1_000_000
    strata: Sequence[str] = ("family", "level")
    low: float = 0.3
    high: float = 0.7
    optimism: float = 0.25
    prior: float = 4.0
    half_life: float = 16.0
    explore: float = 0.05
    skip_base: float = 0.5
    skip_floor: float = 0.05
    most_skips: int = 8
    retire_after: int | None = None
    hindsight: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("initial", 1),
            ("refill", 0),
            ("refill_every", 1),
            ("largest", 1),
            ("most_skips", 0),
        ):
            _check_whole(f"curriculum.{name}", getattr(self, name), least)
        if self.retire_after is not None:
            _check_whole("curriculum.retire_after", self.retire_after, 1)
        for name in ("low", "high", "explore", "skip_base", "skip_floor"):
            _check_between(f"curriculum.{name}", getattr(self, name), 0.0, 1.0)
        for name in ("optimism", "prior", "half_life"):
            _check_between(f"curriculum.{name}", getattr(self, name), 0.0, math.inf)
        if not 0.0 < self.low <= self.high < 1.0:
            raise ConfigError(
                f"curriculum.low and curriculum.high are {self.low} and {self.high}; they are pass "
                "rates above 0 and below 1, low not above high"
            )
        for name in ("prior", "half_life"):
            if not getattr(self, name):
                raise ConfigError(f"curriculum.{name} is 0; it is a number above 0")
        if isinstance(self.strata, str) or not self.strata or not _all_texts(self.strata):
            raise ConfigError(
                f"curriculum.strata is {self.strata!r}; it is a list of columns, such as "
                "[family, level]"
            )
        if not isinstance(self.hindsight, bool):
            raise ConfigError(f"curriculum.hindsight is {self.hindsight!r}; it is true or false")


@dataclass(frozen=True)
class BreakerConfig:
    """When a phase ends at once because a reward fails too often.

    :param max_error_rate: largest share of errors that one reward may have among the latest scored
        answers of a phase, or all of them among the guard's; 1.0 never ends a phase in training.
    :param window: latest answers of a phase that the share is taken over; one generation batch at
        the least.
    """

    max_error_rate: float = 0.2
    window: int = 256

    def __post_init__(self) -> None:
        rate = self.max_error_rate
        if not _is_number(rate) or not 0.0 <= rate <= 1.0:
            raise ConfigError(
                f"breaker.max_error_rate is {_told(rate)}; it is a share between 0 and 1"
            )
        _check_whole("breaker.window", self.window, 1)


@dataclass(frozen=True)
class GateConfig:
    """A bar of quality for answers that a verifiable reward passes.

    An answer that passes ``reward`` is worth 1 more if its quality is above the threshold, and
    0.5 less if not; what does not pass is worth what it was.

    :param reward: the verifiable reward, by the name it has among ``rewards`` or as the object.
    :param quality: ``likelihood`` (the mean log-likelihood per token of the answer to the plain
        query under the model at phase entry), or a reward: a name, an object, :func:`use`.
    :param threshold: a quality, or ``auto`` for the ``quantile`` of the first answers of a phase.
    :param quantile: share of the entry model's own answers that ``auto`` leaves below the bar.
    """

    reward: PluginOrName = "constraints"
    quality: PluginOrName = "likelihood"
    threshold: float | Literal["auto"] = "auto"
    quantile: float = 0.05

    def __post_init__(self) -> None:
        if self.threshold != "auto" and not (
            _is_number(self.threshold) and math.isfinite(self.threshold)
        ):
            raise ConfigError(
                f"gate.threshold is {_told(self.threshold)}; it is a finite number, or 'auto'"
            )
        if not _is_number(self.quantile) or not 0.0 <= self.quantile < 1.0:
            raise ConfigError(
                f"gate.quantile is {_told(self.quantile)}; it is a share from 0 to below 1"
            )


@dataclass(frozen=True)
class LoraSettings:
    """The temporary adapter of a phase on a plain model; see PEFT's ``LoraConfig``.

    :param target_modules: as in PEFT; ``all-linear`` takes every linear layer but the LM head.
    """

    r: int = 16
    alpha: int = 32
    target_modules: str | Sequence[str] = "all-linear"

    def __post_init__(self) -> None:
        _check_whole("lora.r", self.r, 1)
        _check_whole("lora.alpha", self.alpha, 1)
        targets = self.target_modules
        if not isinstance(targets, str) and not (targets and _all_texts(targets)):
            raise ConfigError(
                f"lora.target_modules is {targets!r}; it is a text such as 'all-linear', or a "
                "list of module names"
            )


@dataclass(frozen=True)
class RisenConfig:
    """Everything that a RISEN callback needs to know.

    :param rewards: reward providers: objects, TRL reward functions, names, :func:`use`.
    :param generator: makes the instructions to train on.
    :param scheduler: decides when to leave fine-tuning and for how long.
    :param held_out: makes the held-out instructions; the generator itself when None.
    :param probe: rows whose loss is watched, or the path of a JSON Lines file with them; each has
        ``text``, or ``prompt`` and ``completion``, or ``messages``.
    :param guard: when a phase is kept.
    :param breaker: when a phase ends at once because a reward fails too often.
    :param gate: a bar of quality for answers that a verifiable reward passes; None for none.
    :param lora: the temporary adapter on a plain model.
    :param grpo: fields of TRL's ``GRPOConfig`` for every phase.
    :param curriculum: how instructions are chosen from a pool; None takes them as the generator
        makes them.
    :param reserve: constraint families that are never trained on and only measured: their names,
        or how many of those that the held-out instructions show, chosen by the seed.
    :param keep_entry: whether the weights at the entry of each kept phase are saved too, as
        ``phase-NNN/entry``; on a plain model its adapter stands on them, and without them it can
        be inspected but not exported apart. Costs a copy of the model on disk per phase.
    :param seed: of instructions, adapters and sampling.
    :param disable: names of plugins to leave out.
    """

    rewards: Sequence[PluginOrName]
    generator: PluginOrName
    scheduler: PluginOrName
    held_out: PluginOrName | None = None
    probe: str | Path | Sequence[Mapping[str, Any]] | None = None
    guard: GuardConfig = field(default_factory=GuardConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    gate: GateConfig | None = None
    lora: LoraSettings = field(default_factory=LoraSettings)
    grpo: Mapping[str, Any] = field(default_factory=dict)
    curriculum: CurriculumConfig | None = None
    reserve: int | Sequence[str] = 0
    keep_entry: bool = False
    seed: int = 0
    disable: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.rewards, str) or not isinstance(self.rewards, Sequence):
            raise ConfigError(
                f"rewards is {self.rewards!r:.60}; it is a list, such as ['constraints']"
            )
        if not self.rewards:
            raise ConfigError("rewards is empty; name at least one reward, such as 'constraints'")
        for name, kind in _SECTIONS.items():
            if name in ("gate", "curriculum") and getattr(self, name) is None:
                continue
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(
                    f"{name} is of type {type(getattr(self, name)).__name__}; "
                    f"give {kind.__name__}(...)"
                )
        if not isinstance(self.grpo, Mapping):
            raise ConfigError(
                f"grpo is {self.grpo!r}; it is a mapping of TRL's GRPOConfig fields to values"
            )
        if self.curriculum is not None and not isinstance(self.curriculum, CurriculumConfig):
            raise ConfigError(
                f"curriculum is of type {type(self.curriculum).__name__}; "
                "give CurriculumConfig(...)"
            )
        _check_reserve(self.reserve, self.guard.report_rows)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError(f"seed is {_told(self.seed)}; it is a whole number")
        if not isinstance(self.keep_entry, bool):
            raise ConfigError(f"keep_entry is {self.keep_entry!r}; it is true or false")
        if isinstance(self.disable, str) or not _all_texts(self.disable):
            raise ConfigError(f"disable is {self.disable!r}; it is a list of plugins' names")
        if isinstance(self.probe, Mapping) or not (
            self.probe is None or isinstance(self.probe, Path) or hasattr(self.probe, "__iter__")
        ):
            raise ConfigError(
                f"probe is of type {type(self.probe).__name__}; it is a list of rows, or the path "
                "of a JSON Lines file"
            )
        check_batches(self.grpo)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "config") -> RisenConfig:
        """Read the form that YAML has: plugins as ``{use: name, options: {...}}``.

        A key without a value counts as left out.

        :raises ConfigError: for an unknown or missing key, naming it and the near miss, and for
            values that no run can use, naming ``where`` they stand.
        """
        try:
            return cls._read(
                {key: value for key, value in data.items() if value is not None}, where
            )
        except ConfigError as error:
            if str(error).startswith(where):
                raise
            raise ConfigError(f"{where}: {error}") from error

    @classmethod
    def _read(cls, data: Mapping[str, Any], where: str) -> RisenConfig:
        known = {entry.name for entry in dataclasses.fields(cls)}
        check_keys(data, known, where)
        for name in ("rewards", "generator", "scheduler"):
            if name not in data:
                raise ConfigError(f"{where} lacks '{name}'")
        read = dict(data)
        if isinstance(read["rewards"], Sequence) and not isinstance(read["rewards"], str):
            read["rewards"] = [
                _read_use(entry, f"{where}: rewards.{index}", reward=True)
                for index, entry in enumerate(read["rewards"])
            ]
        for name in ("generator", "scheduler", "held_out"):
            if name in read:
                read[name] = _read_use(read[name], f"{where}: {name}")
        for name, kind in _SECTIONS.items():
            if name in read:
                read[name] = _read_section(kind, read[name], f"{where}: {name}")
        return cls(**read)

    @classmethod
    def from_yaml(cls, path: str | Path) -> RisenConfig:
        """Read a YAML file; see :meth:`from_dict`.

        :raises ConfigError: if the file cannot be read or does not hold such a mapping.
        """
        import yaml

        try:
            text = Path(path).read_text(encoding="utf-8")
            _check_repeated(yaml.compose(text, yaml.SafeLoader), str(path))
            data = yaml.safe_load(text)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            line = " ".join(str(error).split())
            raise ConfigError(f"{path} is not valid YAML: {line}") from error
        if not isinstance(data, Mapping):
            raise ConfigError(f"{path} holds no mapping; it needs rewards, generator, scheduler")
        return cls.from_dict(data, str(path))


def check_batches(grpo: Mapping[str, Any], label: str = "grpo") -> None:
    """Refuse numbers that are none, and a generation batch that cannot be cut into whole groups.

    :param label: whose settings they are.
    :raises ConfigError: naming the numbers and the group sizes that fit.
    """
    _check_numbers(grpo, label)
    settings = {"gradient_accumulation_steps": 1, **DEFAULT_GRPO, **grpo}
    group = settings["num_generations"]
    at_once = settings["per_device_train_batch_size"]
    batch, steps = settings.get("generation_batch_size"), settings.get("steps_per_generation")
    if batch is not None and steps is not None:
        raise ConfigError(
            f"{label} sets both generation_batch_size and steps_per_generation, which say the "
            "same; leave one out"
        )
    if batch is None:
        batch = at_once * (steps or settings["gradient_accumulation_steps"])
    if batch % at_once:
        raise ConfigError(
            f"{label}.generation_batch_size = {batch} is no multiple of "
            f"per_device_train_batch_size = {at_once}; make it one"
        )
    if batch % group:
        fits = [n for n in range(2, batch + 1) if batch % n == 0]
        raise ConfigError(
            f"{label}.num_generations = {group} does not divide the generation batch of {batch} "
            f"answers (per_device_train_batch_size x steps per generation); "
            f"it can be {', '.join(map(str, fits)) or 'nothing: raise the batch to 2 or more'}"
        )


def _check_numbers(grpo: Mapping[str, Any], label: str) -> None:
    for name, value in grpo.items():
        if value is None and name in DEFAULT_GRPO:
            raise ConfigError(
                f"{label}.{name} has no value; leave it out for {DEFAULT_GRPO[name]!r}"
            )
        if name in _COUNTS and value is not None:
            _check_whole(f"{label}.{name}", value, _COUNTS[name])
        if name in _NUMBERS and (not _is_number(value) or not math.isfinite(value)):
            raise ConfigError(f"{label}.{name} is {_told(value)}; it is a finite number")
        if isinstance(value, str) and _EXPONENT.fullmatch(value):
            raise ConfigError(f"{label}.{name} is {_told(value)}")


_SECTIONS: Mapping[str, type] = {
    "guard": GuardConfig,
    "breaker": BreakerConfig,
    "gate": GateConfig,
    "lora": LoraSettings,
    "curriculum": CurriculumConfig,
}

DEFAULT_GRPO: Mapping[str, Any] = {
    "num_generations": 8,
    "per_device_train_batch_size": 32,
    "max_completion_length": 128,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
}
"""What a phase uses where neither the configuration nor the scheduler says otherwise."""


_GRADING = ("weight", "passes_at", "graded", "on_error", "timeout_s")

_COUNTS = {
    "num_generations": 2,
    "per_device_train_batch_size": 1,
    "max_completion_length": 1,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": 1,
    "generation_batch_size": 1,
}
"""Whole numbers among the fields of ``GRPOConfig`` that are read here, and the least of each."""

_NUMBERS = ("learning_rate", "warmup_steps", "logging_steps")
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?e[-+]?\d+", re.IGNORECASE)


def _check_grading(given: Use | Weighted, label: str) -> None:
    for name in ("weight", "passes_at"):
        value = getattr(given, name)
        if not _is_number(value) or not math.isfinite(value):
            raise ConfigError(f"{label}: {name} is {_told(value)}; it is a finite number")
    if not isinstance(given.graded, bool):
        raise ConfigError(f"{label}: graded is {given.graded!r}; it is true or false")
    if given.on_error not in ("stop", "skip"):
        raise ConfigError(f"{label}: on_error is {given.on_error!r}; it is 'stop' or 'skip'")
    limit = given.timeout_s
    if limit is not None and not (_is_number(limit) and math.isfinite(limit) and limit > 0):
        raise ConfigError(
            f"{label}: timeout_s is {_told(limit)}; it is a number of seconds above 0, or nothing "
            "for no limit"
        )


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{name} is {_told(value)}; it is a whole number from {least}")
    if value < least:
        raise ConfigError(f"{name} is {value}; least is {least}")


def _check_between(name: str, value: Any, least: float, most: float) -> None:
    if not _is_number(value) or not least <= value <= most or math.isinf(value):
        told = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
        raise ConfigError(f"{name} is {_told(value)}; it is a number {told}")


def _check_reserve(reserve: Any, report_rows: int) -> None:
    if isinstance(reserve, int) and not isinstance(reserve, bool):
        _check_whole("reserve", reserve, 0)
    elif isinstance(reserve, str) or not _all_texts(reserve):
        raise ConfigError(
            f"reserve is {_told(reserve)}; it is a list of families, or how many of them"
        )
    if reserve and not report_rows:
        raise ConfigError(
            "reserve sets families apart to be measured, but guard.report_rows is 0; raise that, "
            "or leave reserve out"
        )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _all_texts(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, str) for value in values)


def _told(value: Any) -> str:
    """A wrong value as a message shows it; YAML 1.1 reads ``1e-5`` as a text."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        mantissa, exponent = value.lower().split("e")
        sign = "" if exponent[0] in "+-" else "+"
        point = "" if "." in mantissa else ".0"
        return f"the text '{value}' (in YAML write {mantissa}{point}e{sign}{exponent})"
    return repr(value)


def _check_repeated(node: Any, where: str) -> None:
    """Refuse a mapping that says one key twice; YAML readers silently take the last one."""
    children = list(node.value) if node is not None and not isinstance(node.value, str) else []
    keys: set[str] = set()
    for child in children:
        if not isinstance(child, tuple):
            _check_repeated(child, where)
            continue
        key, value = child
        if isinstance(key.value, str):
            if key.value in keys:
                line = key.start_mark.line + 1
                raise ConfigError(f"{where}:{line} says '{key.value}' twice; leave one out")
            keys.add(key.value)
        _check_repeated(value, where)


def _read_use(entry: Any, where: str, *, reward: bool = False) -> Any:
    if not isinstance(entry, Mapping):
        return entry  # a name, or an object when the mapping was made in Python
    known = {"use", "options"} | (set(_GRADING) if reward else set())
    for key in entry:
        if key not in known:
            told = (
                "it belongs to rewards"
                if key in _GRADING
                else f"the options of a plugin stand under 'options: {{{key}: ...}}'"
            )
            hint = near_miss(str(key), known - entry.keys()) or f"; {told}."
            raise ConfigError(
                f"{where} has no key '{key}'{hint} It takes: {', '.join(sorted(known))}"
            )
    if not isinstance(entry.get("use"), str):
        raise ConfigError(f"{where} lacks 'use', the name of a plugin's offer")
    options = entry.get("options") or {}
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}.options is not a mapping of names to values")
    rest = {key: value for key, value in entry.items() if key not in ("use", "options")}
    return Use(entry["use"], options, **rest)


def _read_section(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} is not a mapping of names to values")
    check_keys(data, {entry.name for entry in dataclasses.fields(kind)}, where)
    read = dict(data)
    if "quality" in read:  # of the gate: said like a reward
        read["quality"] = _read_use(read["quality"], f"{where}.quality")
    return kind(**read)


def check_keys(data: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise ConfigError(
                f"{where} has no key '{key}'{near_miss(str(key), known) or '.'} "
                f"It takes: {', '.join(sorted(known))}"
            )
