"""One burst: a trial of a short fine-tuning on the leftovers of RISEN phases.

Which rows it gets is decided by the buffers.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from risen_plugin.config import BuffersConfig, effective_grpo
from risen_plugin.contracts import Decision
from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.guard.changes import Changes, compare
from risen_plugin.guard.verdicts import Action, Verdict, judge_burst
from risen_plugin.instructions.rows import derived_seed
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.guarding import announce_measured
from risen_plugin.phases.measuring import Measurement
from risen_plugin.phases.trial import Announce, Stopwatch, Trial, metrics_of
from risen_plugin.progress import GUARD_S, SECONDS
from risen_plugin.training.adapters import Snapshot
from risen_plugin.training.answering import longest_prompt
from risen_plugin.training.fine_tuning import build_fine_tuning, fine_tune
from risen_plugin.training.losses import encode_probe
from risen_plugin.training.protocols import AdaptedModel

CHANGEABLE = ("learning_rate", "batch_size", "own_share", "min_gain", "max_probe_loss_rise")
_SET_APART = ("largest", "band", "unsolved_after", "demonstrations")
assert {*CHANGEABLE, *_SET_APART} == {entry.name for entry in fields(BuffersConfig)}


def check_burst_fields(
    parameters: Mapping[str, Any], config: BuffersConfig, label: str
) -> BuffersConfig:
    """The settings of one burst.

    :raises ConfigError: for a field that a scheduler cannot set for a burst, or a wrong value.
    """
    for name in parameters:
        if name not in CHANGEABLE:
            raise ConfigError(
                f"{label} may not set '{name}' for a burst{near_miss(name, CHANGEABLE) or ';'} "
                f"it may set {', '.join(CHANGEABLE)}"
            )
    try:
        return replace(config, **parameters)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error


class Burst(Trial):
    """A burst from its entry to its verdict.

    There is something to fine-tune on: :meth:`Buffers.lacking` was asked.
    """

    kind = "burst"
    title = "burst"

    def __init__(
        self,
        context: PhaseContext,
        decision: Decision,
        *,
        number: int,
        at_step: int,
        folder: Path,
        announce: Announce,
    ) -> None:
        super().__init__(
            context,
            decision,
            number=number,
            at_step=at_step,
            folder=folder,
            announce=announce,
            grpo=effective_grpo(context.config.grpo),
            seed=derived_seed(context.config.seed, "burst", number),
            stopwatch=Stopwatch(),
        )
        self.config = check_burst_fields(decision.parameters, context.config.buffers, self.label)
        self.mixture = context.buffers.mixture(
            self.config,
            steps=decision.steps,
            seed=self.seed,
            leave_out=context.instructions.held_out.has,
        )
        self.losses: list[float] = []
        self.before: Measurement | None = None
        self.after: Measurement | None = None
        self.changes: Changes | None = None
        self._began = time.perf_counter()

    def begin(self) -> None:
        """Clear the folder of a burst that a resumed run runs again."""
        if self.context.processes.is_main:
            shutil.rmtree(self.folder, ignore_errors=True)

    def measure_entry(self) -> None:
        """Measure the model as it enters the burst."""
        self.before = self.measure(self.context.model, "before")
        action = Action("go_on", "measured at entry")
        announce_measured(self.announce, "before", 0, self.before, None, action)

    def train(self, snapshot: Snapshot) -> AdaptedModel:
        """Fine-tune on the mixture."""
        context = self.context
        longest = longest_prompt(context.model, 1) + 1
        asked = {"chat_template_kwargs": self.asking.template}
        rows = encode_probe(
            context.tokenizer, [{**asked, **row} for row in self.mixture.rows], longest
        )
        settings = {
            "output_dir": str(self.folder),
            "max_steps": self.decision.steps,
            "seed": self.seed,
            "learning_rate": self.config.learning_rate,
            "per_device_train_batch_size": -(-self.config.batch_size // context.args.world_size),
        }
        trainer = context.processes.together(
            lambda: build_fine_tuning(
                context.model,
                context.tokenizer,
                rows,
                outer=context.args,
                lora=context.config.lora,
                settings=settings,
            )
        )
        self.losses += fine_tune(trainer, self.decision.steps, self.label, quiet=context.quiet)
        return cast(AdaptedModel, trainer.model)

    def measure_exit(self, trained: AdaptedModel | None) -> None:
        """Measure the model that was fine-tuned."""
        assert trained is not None  # a burst always trains
        self.after = self.measure(trained, "after")

    def judge(self) -> Verdict:
        """Whether the burst is kept: unless it does harm."""
        before, after = self._ends
        guard = replace(
            self.context.config.guard, max_probe_loss_rise=self.config.max_probe_loss_rise
        )
        self.changes = compare(before.by_row, after.by_row, guard, guard.confidence)
        outage = before.outage or after.outage
        if outage is not None:
            verdict = Verdict(False, outage)
        else:
            verdict = judge_burst(before.guard, after.guard, self.config.min_gain, self.changes)
        action = Action("go_on" if verdict.accepted else "roll_back", verdict.reason)
        announce_measured(self.announce, "after", self.steps, after, self.changes, action)
        return verdict

    @property
    def _ends(self) -> tuple[Measurement, Measurement]:
        assert self.before is not None
        assert self.after is not None
        return self.before, self.after

    @property
    def ends(self) -> tuple[Measurement | None, Measurement | None]:
        """As they were measured."""
        return self.before, self.after

    @property
    def steps(self) -> int:
        """Steps that were taken: all of them."""
        return self.decision.steps

    @property
    def logs(self) -> Sequence[Mapping[str, Any]]:
        """The loss of each step."""
        return [{"step": step, "loss": loss} for step, loss in enumerate(self.losses, 1)]

    def metrics(self, verdict: Verdict) -> dict[str, Any]:
        """The numbers of the burst."""
        before, after = self._ends
        return {
            **metrics_of(before, after, self.changes),
            "rows_own": self.mixture.own,
            "rows_demonstrations": self.mixture.demonstrations,
            "loss_first": self.losses[0] if self.losses else math.nan,
            "loss": self.losses[-1] if self.losses else math.nan,
            GUARD_S: round(self.stopwatch.seconds[GUARD_S], 4),
            SECONDS: round(time.perf_counter() - self._began, 4),
            "verdict": verdict.reason,
        }
