"""One RISEN phase: measure, reinforce, measure again, then keep the phase or drop it.

Runs inside the clean room. On a plain model a phase trains a temporary adapter, which is merged
into the weights when the phase pays; dropping it touches no weight. On a user's PeftModel it
trains their adapter, which is put back from a snapshot when the phase does not pay or fails.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel
from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin.config import effective_grpo
from risen_plugin.contracts import Decision, PhaseRecord, text_of
from risen_plugin.instructions.supply import derived_seed
from risen_plugin.kit.stopwatch import Clock
from risen_plugin.phases.checkpoints import Kept, PhaseCheckpoints
from risen_plugin.phases.guarding import Guarding, Tell, untold
from risen_plugin.phases.measuring import Surroundings
from risen_plugin.record.rollouts import FILE, RolloutLog
from risen_plugin.record.run_record import write_json, writing
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.panel import Panel
from risen_plugin.rewards.scores import OutageError
from risen_plugin.training.adapters import Snapshot, entry_folder, merge, save_adapter
from risen_plugin.training.answering import answers, longest_prompt
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import GrpoLogs, Plan, build_trainer, train
from risen_plugin.training.likelihood import Likelihood

_PARTS = ("guard_s", "enter_s", "reinforce_s", "leave_s")
_LOGGED = ("reward", "reward_std", "kl", "entropy", "frac_reward_zero_std")


def run_phase(
    around: Surroundings,
    decision: Decision,
    *,
    number: int,
    at_step: int,
    folder: Path,
    tell: Tell = untold,
    checkpoints: PhaseCheckpoints | None = None,
    run_state: Callable[[], Mapping[str, Any]] = dict,
) -> PhaseRecord:
    """Run one RISEN phase and return its record; ``folder`` receives what is kept of it.

    :param tell: writes an event of the phase: its name, and values by name.
    :param checkpoints: of this phase; if one was found, the phase goes on from there.
    :param run_state: the state of the run around the phase, for its checkpoints.
    :raises RisenError: if a reward or generator fails; everything is then as it was before.
    """
    clock, done = Clock(_PARTS), _Done()
    checkpoints = checkpoints or PhaseCheckpoints(folder, 0)
    kept = checkpoints.kept
    plan = _plan(around, decision, number, folder, kept=kept)
    processes = around.processes
    processes.main(lambda: _prepare(around, folder, checkpoints))
    guarding = Guarding(around, plan, clock, tell)
    if around.told is not None:
        done.logs.listener = partial(around.told, number)
    entry = _count(around, clock, done, kept=kept)
    around.buffers.begin(phase=number, at_step=at_step)
    with (
        _logged(around, folder, number, checkpoints) as log,
        clean_room(around.model, around.tokenizer, *around.others),
        Snapshot(around.model) as snapshot,
    ):
        if kept is None:
            before = guarding.enter()
            around.instructions.measured(before.by_row.passed)
        else:
            before = guarding.go_on(kept.data["guard"])
        checkpoints.gather = lambda: {
            "run": run_state(),
            "entry": entry,
            "counts": around.instructions.counts(),
            "panel": around.panel.state_dict(),
            "guard": guarding.state_dict(),
            "logs": done.logs.entries,
            "seconds": clock.seconds,
            "log": log.cut(),
        }
        trainer = None
        if before.outage is not None:
            around.panel.begin(group=plan.grpo["num_generations"])
        else:
            trainer = _reinforce(around, plan, snapshot, guarding, done, checkpoints=checkpoints)
        verdict = guarding.verdict(done.steps, done.outage)
        with clock.time("leave_s"):
            if verdict.accepted:
                assert trainer is not None
                processes.main(partial(_keep, around, trainer.model, folder, "adapter"))
                if not isinstance(around.model, PeftModel):
                    merge(trainer.model)
            else:
                if around.config.keep_dropped and trainer is not None:
                    processes.main(partial(_keep, around, trainer.model, folder, "dropped"))
                snapshot.restore()
                around.controllers.dropped()
                if processes.is_main:
                    shutil.rmtree(entry_folder(folder), ignore_errors=True)
            around.panel.end()
            del trainer
    with clock.time("leave_s"):
        gc.collect()  # the trainer and its adapter hold each other in cycles
    metrics = {
        **guarding.metrics(),
        **_logs(done.logs),
        **around.instructions.figures(),
        "rollouts": around.pass_rates.rollouts - entry["rollouts"],
        "tokens": around.pass_rates.tokens - entry["tokens"],
        "pass_rates": around.pass_rates.rates(),
        **_error_metrics(around.panel),
        **{name: round(seconds, 4) for name, seconds in clock.seconds.items()},
        "verdict": verdict.reason,
    }
    metrics |= around.buffers.end(verdict.accepted, metrics, around.config.guard)
    record = processes.agree(
        PhaseRecord("risen", done.steps, at_step, decision.reason, verdict.accepted, metrics)
    )
    data = {
        **asdict(record),
        "parameters": dict(decision.parameters),
        "verdict": asdict(verdict),
        "logs": done.logs.entries,
    }
    processes.main(lambda: _write(around, folder, data))
    return record


def _plan(
    around: Surroundings, decision: Decision, number: int, folder: Path, *, kept: Kept | None
) -> Plan:
    grpo = effective_grpo(around.config.grpo, decision.parameters)
    if kept is None:
        grpo |= around.controllers.begin(grpo, decision.steps, around.processes.count)
    else:  # as it was steered to by then
        grpo["beta"] = kept.data["trainer"]["beta"]
    return Plan(
        steps=decision.steps,
        grpo=grpo,
        lora=around.config.lora,
        seed=derived_seed(around.config.seed, "phase", number),
        output_dir=str(folder),
        label=f"RISEN phase {number}",
        quiet=around.quiet,
    )


def _prepare(around: Surroundings, folder: Path, checkpoints: PhaseCheckpoints) -> None:
    """Make room for what is kept of the phase, and save the weights at its entry if asked to."""
    with writing(folder):
        checkpoints.clear()
    if around.config.keep_entry and not isinstance(around.model, PeftModel):
        with around.keeping(folder):
            around.model.save_pretrained(entry_folder(folder))
            around.tokenizer.save_pretrained(entry_folder(folder))


def _count(around: Surroundings, clock: Clock, done: _Done, *, kept: Kept | None) -> dict[str, int]:
    """Begin to count, or go on where a phase was cut off; what was sampled before the phase."""
    if kept is None:
        around.instructions.begin_figures()
        return {"rollouts": around.pass_rates.rollouts, "tokens": around.pass_rates.tokens}
    around.instructions.begin_figures(kept.data["counts"])
    done.logs.entries += kept.data["logs"]
    clock.seconds |= kept.data["seconds"]
    return dict(kept.data["entry"])


def _keep(around: Surroundings, trained: Any, folder: Path, called: str) -> None:
    with around.keeping(folder):
        save_adapter(around.model, trained, folder, called)


@contextmanager
def _logged(
    around: Surroundings, folder: Path, number: int, checkpoints: PhaseCheckpoints
) -> Iterator[RolloutLog]:
    """Every sampled answer goes into the phase's log, whatever becomes of the phase."""
    position = None if checkpoints.kept is None else checkpoints.kept.data["log"]
    log = RolloutLog(folder / FILE, parts=checkpoints.place, position=position)
    if not around.processes.is_main:  # the main process is told of all answers
        yield log
        return

    def listen(batch: Batch) -> None:
        with around.keeping(folder):
            log.add(batch, phase=number)

    try:
        with around.panel.listening(listen):
            yield log
    finally:
        with around.keeping(folder):
            log.close()


@dataclass
class _Done:
    """What became of the GRPO steps: how many there were, their logs, and what cut them short."""

    steps: int = 0
    logs: GrpoLogs = field(default_factory=GrpoLogs)
    outage: str | None = None


def _reinforce(
    around: Surroundings,
    plan: Plan,
    snapshot: Snapshot,
    guarding: Guarding,
    done: _Done,
    *,
    checkpoints: PhaseCheckpoints,
) -> GRPOTrainer:
    """Train, and measure again; there is no second measurement if the training was cut short."""
    clock, kept = guarding.clock, checkpoints.kept
    with clock.time("enter_s"):
        processes = around.processes
        trainer = processes.together(
            lambda: build_trainer(
                around.model,
                around.tokenizer,
                around.panel.trl_rewards,
                lambda count: processes.main(
                    lambda: around.instructions.next(count, around.pass_rates.rates())
                ),
                outer=around.args,
                plan=plan,
            )
        )
        around.panel.begin(
            group=plan.grpo["num_generations"],
            processes=processes,
            likelihood=_likelihood(around, plan, trainer.model, snapshot),
            state=None if kept is None else kept.data["panel"],
        )
        around.instructions.context["generate"] = _generate(around, plan, trainer.model)
        steering = guarding.steering(trainer)
        if kept is not None:
            kept.restore(trainer)
        write = partial(_write_checkpoint, around, checkpoints, trainer)
        checkpoints.follow(trainer, write)
    try:
        if kept is None or not kept.is_finished:
            with clock.time("reinforce_s"):
                train(trainer, plan, done.logs, steering=steering)
            write(finished=True)
    except OutageError as error:
        done.outage = str(error)
    finally:
        del around.instructions.context["generate"]
    done.steps = trainer.state.global_step
    if done.outage is None:
        guarding.leave(trainer)
    return trainer


def _write_checkpoint(
    around: Surroundings, checkpoints: PhaseCheckpoints, trainer: Any, *, finished: bool = False
) -> None:
    """Write a checkpoint of the phase; a disk that takes none stops no training."""
    with around.keeping(checkpoints.place):
        try:
            checkpoints.write(trainer, finished=finished)
        except RuntimeError as error:  # torch's own, where a file cannot be written
            raise OSError(str(error)) from error


def _generate(around: Surroundings, plan: Plan, trained: Any) -> Callable[[list[Any]], list[str]]:
    """Lets a generator ask the model in training; greedy, so that it draws no random number."""

    def generate(prompts: list[Any]) -> list[str]:
        was_training = trained.training
        made = answers(
            trained,
            around.tokenizer,
            prompts,
            max_new_tokens=plan.grpo["max_completion_length"],
            batch_size=around.config.guard.batch_size,
        )
        trained.train(was_training)
        return [text_of(answer) for answer in made]

    return generate


def _likelihood(around: Surroundings, plan: Plan, trained: Any, snapshot: Snapshot) -> Likelihood:
    """The quality of an answer under the model at phase entry, out of the model in training."""
    answer = plan.grpo["max_completion_length"]
    own = isinstance(around.model, PeftModel)
    return Likelihood(
        trained,
        around.tokenizer,
        snapshot.placed if own else trained.disable_adapter,
        longest=longest_prompt(around.model, answer) + answer,
    )


def _logs(logs: GrpoLogs) -> dict[str, Any]:
    """What TRL logged last, and the first reward."""
    metrics: dict[str, Any] = {}
    for name in _LOGGED:
        value = logs.last(name)
        if value is not None:
            metrics[name] = value
    first = logs.first("reward")
    if first is not None:
        metrics["reward_first"] = first
    return metrics


def _error_metrics(panel: Panel) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        f"reward_errors/{name}": count.errors for name, count in panel.errors.items()
    }
    examples = {name: count.example for name, count in panel.errors.items() if count.errors}
    if examples:
        metrics["error_examples"] = examples
    if panel.threshold is not None:
        metrics["gate_threshold"] = panel.threshold
    return metrics


def _write(around: Surroundings, folder: Path, data: Mapping[str, Any]) -> None:
    with around.keeping(folder):
        write_json(folder / "phase.json", data)
