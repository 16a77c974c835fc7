"""One RISEN phase: a trial of GRPO on instructions, behind its guard.

Beside the frame of a trial a phase has GRPO with the rewards, the guard and the controllers that
steer it, a log of every answer, and checkpoints to go on from inside it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel

from risen_plugin.config.grpo import effective_grpo
from risen_plugin.contracts import Decision, Prompt, Row
from risen_plugin.guard.verdicts import Verdict
from risen_plugin.instructions.rows import derived_seed
from risen_plugin.phases.anchoring import make_anchors
from risen_plugin.phases.checkpoints import PhaseCheckpoint, PhaseCheckpoints
from risen_plugin.phases.cold_start import ColdStart
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.guarding import PhaseGuard, Steering
from risen_plugin.phases.measuring import Measurement
from risen_plugin.phases.sampling import Alarm, ChosenWay, Way, way_of
from risen_plugin.phases.shrinking import Shrinking
from risen_plugin.phases.trial import Announce, Stopwatch, Trial
from risen_plugin.progress import (
    ENTER_S,
    OF_MENDING,
    REINFORCE_S,
    REWARD_ERRORS,
    SECONDS_SAID,
    SECONDS_TAKEN,
    TIMED,
)
from risen_plugin.record.rollouts import FILE, RolloutLog
from risen_plugin.record.run_record import writing
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.panel import Panel
from risen_plugin.rewards.scores import OutageError
from risen_plugin.training.adapters import Snapshot, entry_folder
from risen_plugin.training.anchoring import Anchors
from risen_plugin.training.answering import longest_prompt, texts_in_training
from risen_plugin.training.grpo import GrpoLogs, Plan, build_trainer, train
from risen_plugin.training.losses import Likelihood
from risen_plugin.training.phase_trainer import PhaseTrainer
from risen_plugin.training.protocols import AdaptedModel, Model


class RisenPhase(Trial):
    """A RISEN phase from its entry to its verdict.

    :param checkpoints: of this phase; if it resumes one, the phase goes on from there.
    :param run_state: makes the state of the run around the phase, for its checkpoints.
    """

    kind = "risen"
    title = "RISEN phase"

    def __init__(
        self,
        context: PhaseContext,
        decision: Decision,
        *,
        number: int,
        at_step: int,
        folder: Path,
        announce: Announce,
        checkpoints: PhaseCheckpoints,
        run_state: Callable[[], Mapping[str, Any]],
        held_out_adherence: Sequence[float] = (),
    ) -> None:
        resumed = checkpoints.resumed
        data: Mapping[str, Any] = {} if resumed is None else resumed.data
        super().__init__(
            context,
            decision,
            number=number,
            at_step=at_step,
            folder=folder,
            announce=announce,
            grpo=_grpo_fields(context, decision, resumed),
            seed=derived_seed(context.config.seed, "phase", number),
            stopwatch=Stopwatch(TIMED, data.get("seconds", {})),
        )
        self.resumed = resumed
        self.checkpoints = checkpoints
        self.run_state = run_state
        self.held_out_adherence = list(held_out_adherence)
        self.guard = PhaseGuard(self, data.get("guard"))
        self.plan = Plan(
            steps=decision.steps,
            grpo=self.grpo,
            lora=context.config.lora,
            seed=self.seed,
            output_dir=str(folder),
            label=self.label,
            quiet=context.quiet,
            max_weight=context.config.rollout.max_weight,
        )
        self.grpo_logs = GrpoLogs(list(data.get("logs", [])), context.log_series)
        self.answer_log = RolloutLog(
            folder / FILE, parts=checkpoints.path, position=data.get("log")
        )
        sampled = {"rollouts": context.pass_rates.rollouts, "tokens": context.pass_rates.tokens}
        self.sampled_before: Mapping[str, int] = data.get("entry", sampled)
        self.outage: str | None = None
        self.cold_start = ColdStart(
            context, self.asking, self.label, self.seed, data.get("mended", {})
        )
        self.way = Way(context.config.rollout.use)
        self.alarm = Alarm(context.config.rollout.max_mismatch, self.label)
        self._steps = 0
        self._snapshot: Snapshot | None = None

    def begin(self) -> None:
        """Make the folder ready, and begin to count, or go on where the phase was cut off."""
        context, resumed = self.context, self.resumed
        context.processes.main(self._make_room)
        context.instructions.begin_figures(None if resumed is None else resumed.data["counts"])
        context.buffers.begin(phase=self.number, at_step=self.at_step)

    def _make_room(self) -> None:
        """Empty the folder, and save the weights at phase entry if asked to."""
        context = self.context
        with writing(self.folder):
            self.checkpoints.clear()
        if context.config.keep_entry and not isinstance(context.model, PeftModel):
            with context.tolerant(self.folder):
                context.model.save_pretrained(entry_folder(self.folder))
                context.tokenizer.save_pretrained(entry_folder(self.folder))

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Every sampled answer goes into the phase's log, whatever becomes of the phase."""
        tolerant = self.context.tolerant
        if not self.context.processes.is_main:  # the main process gets all answers
            yield
            return

        def listen(batch: Batch) -> None:
            with tolerant(self.folder):
                self.answer_log.add(batch, phase=self.number)

        try:
            with self.context.panel.listening(listen):
                yield
        finally:
            with tolerant(self.folder):
                self.answer_log.close()

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Whoever samples the answers is there for as long as the phase lasts."""
        context, label = self.context, f"step {self.at_step}: {self.label}"
        folder = context.rollout_folder or self.folder / "rollout"
        with ExitStack() as held:
            with self.stopwatch.time(ENTER_S):
                before = self._chosen_way()
                way = way_of(context, self.asking, folder, label=label, before=before)
                self.way = held.enter_context(way)
            self.outside = self.way.outside
            yield
        self.outside = None

    def _chosen_way(self) -> ChosenWay | None:
        """The way of sampling that was chosen for this phase before."""
        if self.resumed is not None:
            name = self.resumed.data.get("rollout")
            return None if name is None else ChosenWay(name)
        foretold = self.context.foretold
        return None if foretold is None else ChosenWay(foretold.way, foretold.reason)

    def measure_entry(self) -> None:
        """Measure the model as it enters; a phase that goes on has been measured."""
        if self.resumed is None:
            before = self.guard.enter()
            self.context.instructions.count_measured(before.by_row.passed)

    def train(self, snapshot: Snapshot) -> AdaptedModel | None:
        """Reinforce; None where the guard lets the phase not begin."""
        self._snapshot = snapshot
        if self.guard.before.outage is not None:
            self._begin_panel()
            return None
        resumed = self.resumed
        with self.stopwatch.time(ENTER_S):
            if resumed is None:
                draw = partial(self._draw, model=self.context.model, peek=True)
                self.cold_start.prepare(draw, self.measures_outside)
            anchors = self.context.processes.together(self._anchors)
            trainer = self.context.processes.together(lambda: self._build(anchors))
            self._begin_panel(self._likelihood(trainer.trained, snapshot))
            steering = Steering(
                trainer,
                self.guard,
                self.context.controllers,
                self.announce,
                as_kept=partial(snapshot.as_kept, trainer.trained),
                goes_on=resumed is not None,
                alarm=self.alarm,
            )
            if resumed is not None:
                resumed.restore(trainer)
            self.checkpoints.follow(trainer)
        with self.stopwatch.time(REINFORCE_S):
            self.cold_start.learn(trainer, anchors)
        try:
            if resumed is None or not resumed.is_finished:
                with self.stopwatch.time(REINFORCE_S):
                    train(trainer, self.plan, self.grpo_logs, steering=steering)
                self._write_checkpoint(trainer, finished=True)
        except OutageError as error:
            self.outage = str(error)
        self._steps = trainer.state.global_step
        return trainer.trained

    def measure_exit(self, trained: AdaptedModel | None) -> None:
        """Have the guard measure again, unless the training was cut short."""
        if trained is not None and self.outage is None:
            snapshot = self._snapshot
            assert snapshot is not None  # it has trained
            self.guard.leave(trained, snapshot.as_entered)
            settle_at = partial(snapshot.settle_at, trained)
            Shrinking(self.guard, trained, settle_at, snapshot.as_entered).run()

    def judge(self) -> Verdict:
        """The guard's verdict."""
        return self.guard.verdict(self.steps, self.outage)

    def drop(self, trained: AdaptedModel | None) -> None:
        """Save the adapter if asked to, and have the controllers learn from it."""
        if self.context.config.keep_dropped and trained is not None:
            self.save(trained, "dropped")
        self.context.controllers.drop()
        if self.context.processes.is_main:
            shutil.rmtree(entry_folder(self.folder), ignore_errors=True)

    def leave(self) -> None:
        """Let go of the trained model, and of the weights at entry."""
        self.context.panel.end()
        self._snapshot = None

    @property
    def steps(self) -> int:
        """GRPO steps that were taken."""
        return self._steps

    @property
    def ends(self) -> tuple[Measurement | None, Measurement | None]:
        """As the guard measured them."""
        return self.guard.before, self.guard.after

    @property
    def steps_before(self) -> int | None:
        """GRPO steps that were taken before the phase was cut off; None if it begins."""
        return None if self.resumed is None else self.resumed.step

    @property
    def logs(self) -> Sequence[Mapping[str, Any]]:
        """TRL's log."""
        return self.grpo_logs.entries

    def metrics(self, verdict: Verdict) -> dict[str, Any]:
        """The numbers of the phase; the buffers learn of the verdict."""
        context, before = self.context, self.sampled_before
        metrics = {
            **self.guard.metrics(),
            **self.grpo_logs.as_metrics(),
            **context.instructions.figures(),
            "rollouts": context.pass_rates.rollouts - before["rollouts"],
            "tokens": context.pass_rates.tokens - before["tokens"],
            "pass_rates": context.pass_rates.rates(),
            **_error_metrics(context.panel),
            **_way_metrics(self.way, self.alarm),
            **self._foretold(),
            **{f"{OF_MENDING}{name}": value for name, value in self.cold_start.figures.items()},
            **{name: round(seconds, 4) for name, seconds in self.stopwatch.seconds.items()},
            "verdict": verdict.reason,
        }
        return metrics | context.buffers.end(verdict.accepted, metrics, context.config.guard)

    def _foretold(self) -> dict[str, float]:
        """The seconds that the first phase was said to take when the run began, and took."""
        foretold = self.context.foretold
        if foretold is None or self.number > 1:
            return {}
        taken = time.perf_counter() - foretold.at
        said = foretold.expected.seconds
        return {SECONDS_SAID: round(said, 1), SECONDS_TAKEN: round(taken, 1)}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the phase needs to go on from here, as JSON values."""
        return {
            "run": self.run_state(),
            "entry": self.sampled_before,
            "counts": self.context.instructions.counts(),
            "panel": self.context.panel.state_dict(),
            "guard": self.guard.state_dict(),
            "logs": self.grpo_logs.entries,
            "rollout": self.way.name,
            "mended": self.cold_start.figures,
            "seconds": self.stopwatch.seconds,
            "log": self.answer_log.cut(),
        }

    def _write_checkpoint(self, trainer: PhaseTrainer, *, finished: bool = False) -> None:
        """Write a checkpoint of the phase; a disk that takes none stops no training."""
        with self.context.tolerant(self.checkpoints.path):
            self.checkpoints.write(trainer, self.state_dict, finished=finished)

    # The trainer

    def _anchors(self) -> Anchors | None:
        """Answers of the model at phase entry, which it is as long as no trainer is built."""
        return make_anchors(
            self.context,
            self.asking,
            f"{self.label}: anchors",
            # The steps before GRPO and those of GRPO both begin with the first of them.
            steps=max(self.cold_start.steps, self.decision.steps),
            seed=self.seed,
            outside=self.measures_outside,
        )

    def _build(self, anchors: Anchors | None) -> PhaseTrainer:
        context = self.context

        def supply(count: int) -> list[Row]:
            return context.processes.main(partial(self._draw, count, trainer.trained))

        trainer = build_trainer(
            context.model,
            context.tokenizer,
            context.panel.trl_rewards,
            supply,
            outer=context.args,
            plan=self.plan,
            save=self._write_checkpoint,
            outside=self.outside,
            anchors=anchors,
        )
        return trainer

    def _draw(self, count: int, model: Model, *, peek: bool = False, more: int = 0) -> list[Row]:
        """Instructions to train on, in the main process.

        :param model: the one in training, for generators that ask it.
        :param peek: whether they are drawn again later.
        :param more: tokens of room that an answer needs beyond those of GRPO.
        """
        context = self.context
        answer_tokens = self.grpo["max_completion_length"]
        longest = longest_prompt(context.model, answer_tokens)
        if self.outside is not None:
            longest = self.outside.longest_prompt(longest)

        def generate(prompts: Sequence[Prompt]) -> list[str]:
            return texts_in_training(
                model,
                self.asking,
                prompts,
                batch_size=context.config.guard.batch_size,
                outside=self.outside,
            )

        return context.instructions.next(
            count,
            context.pass_rates.rates(),
            longest=longest - more,
            peek=peek,
            generate=generate,
            held_out_adherence=self.held_out_adherence,
        )

    def _begin_panel(self, likelihood: Likelihood | None = None) -> None:
        """Begin to count in the panel, or go on where the phase was cut off."""
        self.context.panel.begin(
            group=self.grpo["num_generations"],
            processes=self.context.processes,
            likelihood=likelihood,
            state=None if self.resumed is None else self.resumed.data["panel"],
        )

    def _likelihood(self, trained: AdaptedModel, snapshot: Snapshot) -> Likelihood:
        """The quality of an answer under the model at phase entry, out of the one in training."""
        model, answer = self.context.model, self.grpo["max_completion_length"]
        is_users = isinstance(model, PeftModel)
        return Likelihood(
            trained,
            self.asking,
            snapshot.entry_weights if is_users else trained.disable_adapter,
            longest=longest_prompt(model, answer) + answer,
        )


def _grpo_fields(
    context: PhaseContext, decision: Decision, resumed: PhaseCheckpoint | None
) -> dict[str, Any]:
    """The fields of ``GRPOConfig`` as the controllers would have them."""
    grpo = effective_grpo(context.config.grpo, decision.parameters)
    if resumed is not None:  # as it was steered to by then
        return grpo | {"beta": resumed.data["trainer"]["beta"]}
    return grpo | context.controllers.begin(grpo, decision.steps, context.processes.count)


def _way_metrics(way: Way, alarm: Alarm) -> dict[str, Any]:
    """Who sampled, and why so; the GRPO step and the mismatch at which it was too far off."""
    metrics: dict[str, Any] = {}
    if way.outside is not None or way.reason:
        metrics |= {"rollout": way.name, "rollout_reason": way.reason}
    if alarm.rung is not None:
        metrics["mismatch_alarm"] = list(alarm.rung)
    return metrics


def _error_metrics(panel: Panel) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        f"{REWARD_ERRORS}{name}": count.errors for name, count in panel.errors.items()
    }
    examples = {name: count.example for name, count in panel.errors.items() if count.errors}
    if examples:
        metrics["error_examples"] = examples
    if panel.threshold is not None:
        metrics["gate_threshold"] = panel.threshold
    return metrics
