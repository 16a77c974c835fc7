"""Turn a configuration into the objects that a run calls, and check that they fit each other.

Everything here happens before a model is touched: names, options, columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.config import (
    GateConfig,
    RisenConfig,
    RolloutConfig,
    TaskProbe,
    Use,
    Weighted,
)
from risen_plugin.config.sections import AUTO
from risen_plugin.contracts import Row, Scheduler, Stateful
from risen_plugin.errors import ConfigError, DataError, located, near_miss
from risen_plugin.guard.changes import Task
from risen_plugin.instructions.rows import (
    check_columns,
    check_probe,
    check_row,
    draw,
    load_probe,
    short,
)
from risen_plugin.plugins import Kind, Plugins
from risen_plugin.plugins.lookup import look_up
from risen_plugin.plugins.offers import Built
from risen_plugin.rewards.calling import NamedReward, wrap
from risen_plugin.rewards.gate import LIKELIHOOD, Gate


@dataclass(frozen=True)
class Parts:
    """The objects of one configuration.

    :param first_rows: the first instruction of each generator.
    :param rollouts: what may sample the answers of phases in place of TRL, the first one first.
    """

    rewards: tuple[NamedReward, ...]
    generator: Built
    held_out: Built
    scheduler: Built
    plugins: Plugins
    origins: Mapping[str, str]
    gate: Gate | None = None
    domain: NamedReward | None = None
    tasks: tuple[Task, ...] = ()
    first_rows: tuple[Row, ...] = ()
    rollouts: tuple[Built, ...] = ()

    @property
    def asked(self) -> tuple[NamedReward, ...]:
        """Every reward that scores answers in a phase: the rewards, and the gate's own."""
        quality = self.gate.quality if self.gate is not None else None
        if quality is None or quality in self.rewards:
            return self.rewards
        return (*self.rewards, quality)

    @property
    def schedule(self) -> Scheduler:
        return self.scheduler.value  # type: ignore[no-any-return]  # checked by _part

    def stateful(self) -> dict[str, Stateful]:
        """The parts that keep state, by role."""
        parts = {"generator": self.generator.value, "scheduler": self.scheduler.value}
        if self.held_out.value is not self.generator.value:
            parts["held_out"] = self.held_out.value
        parts |= {f"reward:{reward.__name__}": reward.reward for reward in self.asked}
        return {role: part for role, part in parts.items() if isinstance(part, Stateful)}


def assemble(config: RisenConfig) -> Parts:
    """Build every part and check one row of the generator against the rewards.

    :raises RisenError: naming the part that is unknown, missing or does not fit.
    """
    plugins = Plugins.load(disable=config.disable, rollouts=config.rollout.is_outside)
    origins: dict[str, str] = {}
    rewards = tuple(_reward(plugins, wanted, origins) for wanted in config.rewards)
    names = [reward.__name__ for reward in rewards]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two rewards are called '{name}'; TRL logs them by name, so wrap one in a "
                "function of another name"
            )
    if not any(reward.grading.graded for reward in rewards):
        raise ConfigError("no reward is graded, so adherence cannot be measured; grade one")
    generator = _part(plugins, "generator", config.generator, origins)
    held_out = generator
    if config.held_out is not None:
        held_out = _part(plugins, "generator", config.held_out, origins)
    scheduler = _part(plugins, "scheduler", config.scheduler, origins)
    check_probe(config.probe, config.guard.probe_rows)
    if config.anchor is not None:
        from risen_plugin.builtin.generators.anchor_prompts import anchor_prompts  # what few need

        anchor_prompts(config.anchor, chats=True)
    gate = None if config.gate is None else _gate(plugins, config.gate, rewards, origins)
    domain = None
    if config.guard.domain is not None and config.guard.domain_metric is None:
        with located("guard.domain takes a reward, or 'metric:NAME' of compute_metrics"):
            domain = _watched(plugins, config.guard.domain, rewards, origins)
    tasks = tuple(
        _task(plugins, name, probe, rewards, origins) for name, probe in config.guard.tasks.items()
    )
    parts = Parts(
        rewards,
        generator,
        held_out,
        scheduler,
        plugins,
        origins,
        gate,
        domain,
        tasks,
        rollouts=_rollouts(plugins, config.rollout, origins),
    )
    first_rows = tuple(
        _check_first_row(part, parts.asked, config.seed)
        for part in {id(p): p for p in (generator, held_out)}.values()
    )
    if domain is not None:
        _check_first_row(held_out, [domain], config.seed)
    return dataclasses.replace(parts, first_rows=first_rows)


def _check_first_row(part: Built, rewards: Sequence[NamedReward], seed: int) -> Row:
    state = part.value.state_dict() if isinstance(part.value, Stateful) else None
    rows = draw(part, 1, seed)
    if state is not None:
        part.value.load_state_dict(state)
    if not rows:
        raise DataError(f"{part.label} has no instructions to offer")
    check_columns(rows, rewards, part.label)
    return rows[0]


def _reward(plugins: Plugins, wanted: Any, origins: dict[str, str]) -> NamedReward:
    settings = wanted if isinstance(wanted, Use | Weighted) else Weighted(wanted)
    reward = wanted.reward if isinstance(wanted, Weighted) else wanted
    part = _part(plugins, "reward", reward, origins)
    return wrap(part.value, part.name, part.label, settings.grading)


def _gate(
    plugins: Plugins, config: GateConfig, rewards: Sequence[NamedReward], origins: dict[str, str]
) -> Gate:
    names = [reward.__name__ for reward in rewards]
    reward = _among(rewards, config.reward)
    if reward is None:
        wanted = config.reward if isinstance(config.reward, str) else short(config.reward)
        raise ConfigError(
            f"gate.reward is '{wanted}', which is none of the rewards"
            f"{near_miss(str(wanted), names) or '.'} They are: {', '.join(names)}"
        )
    if config.quality == LIKELIHOOD:
        if LIKELIHOOD in names:
            raise ConfigError(
                f"gate.quality '{LIKELIHOOD}' is the model's own, and a reward is called so too; "
                "wrap the reward in a function of another name"
            )
        return Gate(config, reward)
    quality = _among(rewards, config.quality)
    if quality is None:
        quality = _reward(plugins, config.quality, origins)
        if quality.__name__ in names:
            raise ConfigError(
                f"gate.quality and one of the rewards are both called '{quality.__name__}'; give "
                "its name alone for the same reward, or wrap one in a function of another name"
            )
    if quality is reward:
        raise ConfigError(
            f"gate.quality and gate.reward are both '{reward.__name__}'; quality is another score"
        )
    return Gate(config, reward, quality)


def _rollouts(
    plugins: Plugins, config: RolloutConfig, origins: dict[str, str]
) -> tuple[Built, ...]:
    """The one that is named; for ``auto`` every one on offer."""
    if not config.is_outside:
        return ()
    names = [config.use]
    if config.use == AUTO:
        names = [offer.full_name for offer in plugins.offers("rollout")]
    with located("rollout"):
        return tuple(
            _part(plugins, "rollout", Use(name, config.options), origins) for name in names
        )


def _watched(
    plugins: Plugins, wanted: Any, rewards: Sequence[NamedReward], origins: dict[str, str]
) -> NamedReward:
    """A reward that the guard measures by: one of the run's, or one of its own."""
    reward = _among(rewards, wanted)
    if reward is not None:
        return reward
    offered = [offer.name for offer in plugins.offers("reward")]
    if isinstance(wanted, str) and wanted not in offered and not set(":/") & set(wanted):
        names = [reward.__name__ for reward in rewards]
        raise ConfigError(
            f"no reward is called '{wanted}'{near_miss(wanted, [*names, *offered]) or '.'} The run "
            f"has: {', '.join(names)}; offered are: {', '.join(offered)}"
        )
    return _reward(plugins, wanted, origins)


def _task(
    plugins: Plugins,
    name: str,
    probe: TaskProbe,
    rewards: Sequence[NamedReward],
    origins: dict[str, str],
) -> Task:
    label = f"task '{name}'"
    rows = tuple(load_probe(probe.rows, label))
    if not rows:
        raise DataError(f"{label} has no rows; give it some, or leave it out")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{label} has {short(row)} as row {index}; a row has a prompt")
        check_row(row, f"{label} has row {index}")
    with located(label):
        reward = _watched(plugins, probe.reward, rewards, origins)
    check_columns(rows, [reward], label)
    return Task(name, rows, reward)


def _among(rewards: Sequence[NamedReward], wanted: Any) -> NamedReward | None:
    """The reward that is meant by its name or as the object that it wraps."""
    for reward in rewards:
        if wanted is reward.reward or (isinstance(wanted, str) and wanted == reward.__name__):
            return reward
    return None


def _part(plugins: Plugins, kind: Kind, wanted: Any, origins: dict[str, str]) -> Built:
    part = look_up(plugins, kind, wanted)
    origins[f"{kind}:{part.name}"] = part.origin
    return part
