"""One RISEN phase: measure, reinforce, measure again, then keep the phase or drop it.

Runs inside the clean room. On a plain model a phase trains a temporary adapter, which is merged
into the weights when the phase pays; dropping it touches no weight. On a user's PeftModel it
trains their adapter, which is put back from a snapshot when the phase does not pay or fails.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel
from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin.adapters import entry_folder, merge, save_adapter
from risen_plugin.clean_room import clean_room
from risen_plugin.config import DEFAULT_GRPO
from risen_plugin.contracts import Decision, PhaseRecord, text_of
from risen_plugin.fitness import longest_prompt
from risen_plugin.guard import Verdict, judge
from risen_plugin.held_out import State, Surroundings, honesty_of, measure_state, metrics_of
from risen_plugin.instructions import derived_seed
from risen_plugin.likelihood import Likelihood
from risen_plugin.measure import answers
from risen_plugin.outcomes import OutageError, Scores
from risen_plugin.panel import Panel
from risen_plugin.record import write_json, writing
from risen_plugin.reinforce import Outcome, Plan, build_trainer, train
from risen_plugin.rollouts import FILE, RolloutLog
from risen_plugin.snapshot import Snapshot

_PARTS = ("guard_s", "enter_s", "reinforce_s", "leave_s")
_LOGGED = ("reward", "reward_std", "kl", "entropy", "frac_reward_zero_std")


@dataclass
class _Clock:
    """Seconds by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PARTS, 0.0))

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[what] = self.seconds.get(what, 0.0) + spent


def run_phase(
    around: Surroundings, decision: Decision, *, number: int, at_step: int, folder: Path
) -> PhaseRecord:
    """Run one RISEN phase and return its record; ``folder`` receives what is kept of it.

    :raises RisenError: if a reward or generator fails; everything is then as it was before.
    """
    clock = _Clock()
    label = f"RISEN phase {number}"
    grpo = {**DEFAULT_GRPO, **around.config.grpo, **decision.parameters}
    plan = Plan(
        steps=decision.steps,
        grpo=grpo,
        lora=around.config.lora,
        seed=derived_seed(around.config.seed, "phase", number),
        output_dir=str(folder),
        label=label,
        quiet=around.quiet,
    )
    around.instructions.begin_figures()
    rollouts, tokens = around.pass_rates.rollouts, around.pass_rates.tokens
    processes = around.processes
    processes.main(lambda: _prepare(around, folder))
    done = _Done()
    around.panel.begin(group=grpo["num_generations"])
    around.buffers.begin(phase=number, at_step=at_step, group=grpo["num_generations"])
    with (
        _logged(around.panel, folder, number) if processes.is_main else nullcontext(),
        clean_room(around.model, around.tokenizer, *around.others),
        Snapshot(around.model) as snapshot,
    ):
        with clock.time("guard_s"):
            before = processes.agree(measure_state(around, around.model, grpo, f"{label}: before"))
        around.instructions.measured(before.passed)
        trainer = None
        if before.outage is None:
            trainer, after = _reinforce(around, plan, snapshot, clock, done)
            verdict = _verdict(around, before, after, done)
        else:
            after, verdict = None, Verdict(False, f"not begun: {before.outage}")
        with clock.time("leave_s"):
            if verdict.accepted:
                assert trainer is not None
                processes.main(partial(_keep, around.model, trainer.model, folder))
                if not isinstance(around.model, PeftModel):
                    merge(trainer.model)
            else:
                snapshot.restore()
                if processes.is_main:
                    shutil.rmtree(entry_folder(folder), ignore_errors=True)
            around.panel.end()
            del trainer
    with clock.time("leave_s"):
        gc.collect()  # the trainer and its adapter hold each other in cycles
    metrics = {
        **metrics_of(before, after),
        **_logs(done.outcome),
        **around.instructions.figures(),
        "rollouts": around.pass_rates.rollouts - rollouts,
        "tokens": around.pass_rates.tokens - tokens,
        "pass_rates": around.pass_rates.rates(),
        **_error_metrics(around.panel),
        **{name: round(seconds, 4) for name, seconds in clock.seconds.items()},
        "verdict": verdict.reason,
    }
    metrics |= around.buffers.end(verdict.accepted, metrics, around.config.guard)
    record = processes.agree(
        PhaseRecord("risen", done.steps, at_step, decision.reason, verdict.accepted, metrics)
    )
    processes.main(lambda: _write(folder, record, decision, done.outcome, verdict))
    return record


def _prepare(around: Surroundings, folder: Path) -> None:
    """Make room for what is kept of the phase, and save the weights at its entry if asked to."""
    shutil.rmtree(folder, ignore_errors=True)  # of a phase that a resumed run runs again
    if around.config.keep_entry and not isinstance(around.model, PeftModel):
        with writing(folder):
            around.model.save_pretrained(entry_folder(folder))
            around.tokenizer.save_pretrained(entry_folder(folder))


def _keep(model: Any, trained: Any, folder: Path) -> None:
    with writing(folder):
        save_adapter(model, trained, folder)


@contextmanager
def _logged(panel: Panel, folder: Path, number: int) -> Iterator[None]:
    """Every sampled answer goes into the phase's log, whatever becomes of the phase."""

    def listen(
        step: int,
        prompts: list[Any],
        completions: list[Any],
        columns: Mapping[str, Any],
        outcomes: Mapping[str, Scores],
    ) -> None:
        log.add(
            step=step,
            phase=number,
            prompts=prompts,
            completions=completions,
            columns=columns,
            outcomes=outcomes,
            group_size=panel.group,
        )

    with RolloutLog(folder / FILE) as log:
        panel.listeners.append(listen)
        try:
            yield
        finally:
            panel.listeners.remove(listen)


@dataclass
class _Done:
    """What became of the GRPO steps: how many there were, their logs, and what cut them short."""

    steps: int = 0
    outcome: Outcome = field(default_factory=Outcome)
    outage: str | None = None


def _reinforce(
    around: Surroundings, plan: Plan, snapshot: Snapshot, clock: _Clock, done: _Done
) -> tuple[GRPOTrainer, State | None]:
    """Train, and measure again; there is no second measurement if the training was cut short."""
    with clock.time("enter_s"):
        processes = around.processes
        trainer = processes.together(
            lambda: build_trainer(
                around.model,
                around.tokenizer,
                around.panel.columns,
                lambda count: processes.main(
                    lambda: around.instructions.next(count, around.pass_rates.rates())
                ),
                outer=around.args,
                plan=plan,
            )
        )
        around.panel.likelihood = _likelihood(around, plan, trainer.model, snapshot)
        around.instructions.context["generate"] = _generate(around, plan, trainer.model)
    try:
        with clock.time("reinforce_s"):
            train(trainer, plan, done.outcome)
    except OutageError as error:
        done.outage = str(error)
    finally:
        del around.instructions.context["generate"]
    done.steps = trainer.state.global_step
    if done.outage is not None:
        return trainer, None
    with clock.time("guard_s"):
        after = measure_state(around, trainer.model, plan.grpo, f"{plan.label}: after")
        return trainer, around.processes.agree(after)


def _verdict(around: Surroundings, before: State, after: State | None, done: _Done) -> Verdict:
    if after is None:
        return Verdict(False, f"ended at GRPO step {done.steps}: {done.outage}")
    if after.outage is not None:
        return Verdict(False, after.outage)
    return judge(before.guard, after.guard, around.config.guard, honesty_of(before, after))


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


def _logs(outcome: Outcome) -> dict[str, Any]:
    """What TRL logged last, and the first reward."""
    metrics: dict[str, Any] = {}
    for name in _LOGGED:
        value = outcome.last(name)
        if value is not None:
            metrics[name] = value
    first = outcome.first("reward")
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


def _write(
    folder: Path, record: PhaseRecord, decision: Decision, outcome: Outcome, verdict: Verdict
) -> None:
    data = {
        **asdict(record),
        "parameters": dict(decision.parameters),
        "verdict": asdict(verdict),
        "logs": outcome.logs,
    }
    with writing(folder):
        write_json(folder / "phase.json", data)
