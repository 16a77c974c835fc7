"""The objects that the RISEN phases and bursts of one run work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from transformers import TrainingArguments

from risen_plugin.config import RisenConfig
from risen_plugin.guard.changes import Task
from risen_plugin.guard.controllers import Controllers
from risen_plugin.instructions.supply import Instructions
from risen_plugin.kit.processes import ALONE, Processes
from risen_plugin.phases.duration import Foretold
from risen_plugin.phases.leftovers.buffers import Buffers
from risen_plugin.plugins.offers import Built
from risen_plugin.record.run_record import Tolerant
from risen_plugin.rewards.batch import PassRates
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.rewards.panel import Panel
from risen_plugin.training.answering import Encoded
from risen_plugin.training.protocols import Model, Tokenizer

DomainMetrics: TypeAlias = Callable[[], Mapping[str, float]]
LogSeries: TypeAlias = Callable[[int, Mapping[str, float]], None]
Say: TypeAlias = Callable[[str], None]


def no_series(step: int, numbers: Mapping[str, float]) -> None:
    """Log a phase's series nowhere: the callback is attached to no Trainer."""


def unsaid(line: str) -> None:
    """Tell nobody: there is no run around the phase."""


@dataclass(frozen=True)
class PhaseContext:
    """The run around a phase: made when the run starts, and the same for all of its phases.

    :param probe: rows that retention is measured on.
    :param domain: measures the user's own metrics, where the callback is attached to a Trainer.
    :param others: objects beside model and tokenizer that the clean room restores.
    :param domain_reward: scores the guard's answers as the domain wants them; None for no reward.
    :param tasks: further abilities that a phase should leave as good as they were.
    :param tolerant: lets a part of the record be lost where the disk is full.
    :param log_series: gets the phase's GRPO step and the numbers that TRL logs at it.
    :param processes: those of the run; where there are several, all of them are in a phase.
    :param rollouts: what may sample the answers of a phase in place of TRL, the first one first.
    :param rollout_folder: for its files; None for a folder that is gone after the phase.
    :param say: tells people one line.
    :param foretold: what the start of the run said of the time that its first phase takes.
    """

    model: Model
    tokenizer: Tokenizer
    args: TrainingArguments
    config: RisenConfig
    rewards: Sequence[NamedReward]
    panel: Panel
    instructions: Instructions
    pass_rates: PassRates
    probe: Sequence[Encoded]
    controllers: Controllers
    buffers: Buffers
    domain: DomainMetrics | None = None
    others: Sequence[object] = ()
    domain_reward: NamedReward | None = None
    tasks: Sequence[Task] = ()
    quiet: bool = False
    tolerant: Tolerant = field(default_factory=Tolerant)
    log_series: LogSeries = no_series
    processes: Processes = ALONE
    rollouts: Sequence[Built] = ()
    rollout_folder: Path | None = None
    say: Say = unsaid
    foretold: Foretold | None = None
