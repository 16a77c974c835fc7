"""One configuration for a RISEN callback, the same from Python objects and from YAML.

Frozen data; everything that needs no model and no torch is checked here. Fields of TRL's
``GRPOConfig`` are passed through under ``grpo`` and checked when the callback is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from risen_plugin.config.choices import PluginOrName, read_mappings, read_use
from risen_plugin.config.control import ControlConfig, check_control
from risen_plugin.config.grpo import check_batches, effective_grpo
from risen_plugin.config.guard import GuardConfig, TaskProbe
from risen_plugin.config.sections import (
    VLLM,
    AnchorConfig,
    BreakerConfig,
    BuffersConfig,
    CurriculumConfig,
    GateConfig,
    LoraSettings,
    MendingConfig,
    RolloutConfig,
    as_section,
)
from risen_plugin.errors import ConfigError, located
from risen_plugin.kit.checks import all_texts, check_keys, check_whole, shown
from risen_plugin.kit.fields import checked_fields
from risen_plugin.kit.yaml_files import read_mapping


@checked_fields
@dataclass(frozen=True)
class RisenConfig:
    """Everything that a RISEN callback needs to know.

    :param rewards: reward providers: objects, TRL reward functions, names, :func:`use`.
    :param generator: makes the instructions to train on.
    :param scheduler: decides when to leave fine-tuning and for how long; ``plateau`` unless given.
    :param held_out: makes the held-out instructions; the generator itself when None.
    :param probe: rows whose loss is watched, or the path of a JSON Lines file with them; each has
        ``text``, or ``prompt`` and ``completion``, or ``messages``.
    :param guard: when a phase is kept.
    :param control: the controllers that steer a running phase.
    :param breaker: when a phase ends at once because a reward fails too often.
    :param gate: a bar of quality for answers that a verifiable reward passes; None for none.
    :param anchor: holds the model to its own answers to plain prompts while it is reinforced; None
        holds it to none.
    :param mending: begins a phase with a short fine-tuning on the model's own answers, mended by
        code until they meet what was asked for; None begins with GRPO.
    :param lora: the temporary adapter on a plain model.
    :param grpo: fields of TRL's ``GRPOConfig`` for every phase.
    :param rollout: who samples the answers of a phase: ``transformers``, ``vllm``, ``onnx``,
        ``auto``, or a section with options.
    :param curriculum: how instructions are chosen from a pool; None takes them as the generator
        makes them.
    :param reserve: families that are never trained on and only measured: their names, or how many
        of those that the held-out instructions show, chosen by the seed. None reserves one family
        of constraints where at least four are shown and ``guard.report_rows`` is not 0.
    :param buffers: the answers that phases leave for fine-tuning, and how a burst uses them.
    :param keep_entry: whether the weights at the entry of each kept phase are saved too, as
        ``phase-NNN/entry``; on a plain model its adapter was trained on them, and without them
        it can be inspected but not exported apart. Costs a copy of the model on disk per phase.
    :param keep_dropped: whether the adapter of a dropped phase is saved too, as
        ``phase-NNN/dropped``, to look at the model that the guard refused.
    :param checkpoint_before_phase: whether the Trainer, if it saves at all, is asked for a
        checkpoint before each phase, so that a run that dies in the phase goes on inside it; False
        for very large checkpoints, and a phase that was cut off is lost.
    :param checkpoint_every: GRPO steps between the checkpoints of a phase itself; 0 for none.
    :param upload_record: whether uploads of the output folder or of its checkpoints
        (``push_to_hub``, a logger) take the run's record along: prompts and sampled answers.
    :param force: go on with a run that was begun with another configuration or other plugins.
    :param seed: of instructions, adapters and sampling.
    :param disable: names of plugins to leave out.
    """

    rewards: Sequence[PluginOrName]
    generator: PluginOrName
    scheduler: PluginOrName = "plateau"
    held_out: PluginOrName | None = None
    probe: str | Path | Sequence[Mapping[str, Any]] | None = None
    guard: GuardConfig = field(default_factory=GuardConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    gate: GateConfig | None = None
    anchor: AnchorConfig | None = None
    mending: MendingConfig | None = None
    lora: LoraSettings = field(default_factory=LoraSettings)
    grpo: Mapping[str, Any] = field(default_factory=dict)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    curriculum: CurriculumConfig | None = None
    reserve: int | Sequence[str] | None = None
    buffers: BuffersConfig = field(default_factory=BuffersConfig)
    keep_entry: bool = False
    keep_dropped: bool = False
    checkpoint_before_phase: bool = True
    checkpoint_every: int = 5
    upload_record: bool = False
    force: bool = False
    seed: int = 0
    disable: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._read_mappings()
        if isinstance(self.rewards, str) or not isinstance(self.rewards, Sequence):
            raise ConfigError(
                f"rewards is {self.rewards!r:.60}; it is a list, such as ['constraints']"
            )
        if not self.rewards:
            raise ConfigError("rewards is empty; name at least one reward, such as 'constraints'")
        for name, kind in _SECTIONS.items():
            if name in ("gate", "anchor", "mending", "curriculum") and getattr(self, name) is None:
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
        _check_reserve(self.reserve, self.guard)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError(f"seed is {shown(self.seed)}; it is a whole number")
        for name in (
            "keep_entry",
            "keep_dropped",
            "checkpoint_before_phase",
            "upload_record",
            "force",
        ):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it is true or false")
        check_whole("checkpoint_every", self.checkpoint_every, 0)
        if isinstance(self.disable, str) or not all_texts(self.disable):
            raise ConfigError(f"disable is {self.disable!r}; it is a list of plugins' names")
        if isinstance(self.probe, Mapping) or not (
            self.probe is None or isinstance(self.probe, Path) or hasattr(self.probe, "__iter__")
        ):
            raise ConfigError(
                f"probe is of type {type(self.probe).__name__}; it is a list of rows, or the path "
                "of a JSON Lines file"
            )
        _agree_on_vllm(self)
        check_batches(self.grpo)
        check_control(self.control, effective_grpo(self.grpo))

    def _read_mappings(self) -> None:
        """Read the mappings that YAML has for plugins and sections, from Python too."""
        rewards = self.rewards
        if isinstance(rewards, list | tuple) and any(isinstance(r, Mapping) for r in rewards):
            read = [read_use(r, f"rewards.{i}", reward=True) for i, r in enumerate(rewards)]
            object.__setattr__(self, "rewards", read)
        read_mappings(self, "", ("generator", "scheduler", "held_out"))
        object.__setattr__(self, "rollout", as_section(self.rollout))
        for name, kind in _SECTIONS.items():
            value = getattr(self, name)
            if isinstance(value, Mapping):
                object.__setattr__(self, name, _read_section(kind, value, name))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "config") -> RisenConfig:
        """Read the form that YAML has: plugins as ``{use: name, options: {...}}``.

        A key without a value counts as left out.

        :raises ConfigError: for an unknown or missing key, naming it and the near miss, and for
            values that no run can use, naming ``where`` they are.
        """
        with located(where):
            return cls._read(
                {key: value for key, value in data.items() if value is not None}, where
            )

    @classmethod
    def _read(cls, data: Mapping[str, Any], where: str) -> RisenConfig:
        known = {entry.name for entry in dataclasses.fields(cls)}
        check_keys(data, known, where)
        for name in ("rewards", "generator"):
            if name not in data:
                raise ConfigError(f"{where} lacks '{name}'")
        read = dict(data)
        if isinstance(read["rewards"], Sequence) and not isinstance(read["rewards"], str):
            read["rewards"] = [
                read_use(entry, f"{where}: rewards.{index}", reward=True)
                for index, entry in enumerate(read["rewards"])
            ]
        for name in ("generator", "scheduler", "held_out"):
            if name in read:
                read[name] = read_use(read[name], f"{where}: {name}")
        if "rollout" in read:
            read["rollout"] = as_section(read["rollout"])
        for name, kind in _SECTIONS.items():
            if name in read:
                read[name] = _read_section(kind, read[name], f"{where}: {name}")
        return cls(**read)

    @classmethod
    def from_yaml(cls, path: str | Path) -> RisenConfig:
        """Read a YAML file; see :meth:`from_dict`.

        :raises ConfigError: if the file cannot be read or does not hold such a mapping.
        """
        data = read_mapping(path, "rewards and a generator")
        return cls.from_dict(data, str(path))


class RisenFields(TypedDict, total=False):
    """The fields of :class:`RisenConfig` as keyword arguments; a section may be a mapping."""

    rewards: Sequence[PluginOrName]
    generator: PluginOrName
    scheduler: PluginOrName
    held_out: PluginOrName | None
    probe: str | Path | Sequence[Mapping[str, Any]] | None
    guard: GuardConfig | Mapping[str, Any]
    control: ControlConfig | Mapping[str, Any]
    breaker: BreakerConfig | Mapping[str, Any]
    gate: GateConfig | Mapping[str, Any] | None
    anchor: AnchorConfig | Mapping[str, Any] | None
    mending: MendingConfig | Mapping[str, Any] | None
    lora: LoraSettings | Mapping[str, Any]
    grpo: Mapping[str, Any]
    rollout: RolloutConfig | Mapping[str, Any] | str
    curriculum: CurriculumConfig | Mapping[str, Any] | None
    reserve: int | Sequence[str] | None
    buffers: BuffersConfig | Mapping[str, Any]
    keep_entry: bool
    keep_dropped: bool
    checkpoint_before_phase: bool
    checkpoint_every: int
    upload_record: bool
    force: bool
    seed: int
    disable: Sequence[str]


_SECTIONS: Mapping[str, type] = {
    "guard": GuardConfig,
    "control": ControlConfig,
    "breaker": BreakerConfig,
    "gate": GateConfig,
    "anchor": AnchorConfig,
    "mending": MendingConfig,
    "lora": LoraSettings,
    "rollout": RolloutConfig,
    "curriculum": CurriculumConfig,
    "buffers": BuffersConfig,
}


def _agree_on_vllm(config: RisenConfig) -> None:
    """Have ``rollout: vllm`` and TRL's ``use_vllm`` say the same."""
    asked = bool(config.grpo.get("use_vllm"))
    if config.rollout.use == VLLM:
        if config.grpo.get("use_vllm") is False:
            raise ConfigError("rollout is vllm, and grpo.use_vllm is false; leave one of them out")
        object.__setattr__(config, "grpo", {**config.grpo, "use_vllm": True})
    elif asked and config.rollout.is_outside:
        raise ConfigError(
            f"rollout is {config.rollout.use}, and grpo.use_vllm is true; leave one of them out"
        )


def _check_reserve(reserve: object, guard: GuardConfig) -> None:
    if reserve is None:
        return
    if isinstance(reserve, int) and not isinstance(reserve, bool):
        check_whole("reserve", reserve, 0)
    elif isinstance(reserve, str) or not all_texts(reserve):
        raise ConfigError(
            f"reserve is {shown(reserve)}; it is a list of families, or how many of them"
        )
    if reserve and not guard.report_rows:
        raise ConfigError(
            "reserve sets families apart to be measured, but guard.report_rows is 0; raise that, "
            "or leave reserve out"
        )
    if guard.max_gap is not None and not reserve:
        raise ConfigError(
            f"guard.max_gap is {guard.max_gap:g}, but reserve sets no families apart to measure "
            "the gap on; reserve some, or leave guard.max_gap out"
        )


def _read_section(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} is not a mapping of names to values")
    check_keys(data, {entry.name for entry in dataclasses.fields(kind)}, where)
    for entry in dataclasses.fields(kind):
        is_required = entry.default is entry.default_factory is dataclasses.MISSING
        if is_required and data.get(entry.name) is None:
            raise ConfigError(f"{where} lacks '{entry.name}'")
    read = dict(data)
    for name in ("quality", "domain", "reward"):  # said like a reward
        if name in read:
            read[name] = read_use(read[name], f"{where}.{name}")
    if isinstance(read.get("tasks"), Mapping):
        read["tasks"] = {
            name: _read_section(TaskProbe, task, f"{where}.tasks.{name}")
            for name, task in read["tasks"].items()
        }
    return kind(**read)
