"""Measure fine-tuning and RISEN with the real Trainer and real phases, within a budget.

RISEN is measured by a phase without a learning rate, which ends when its time is up and leaves the
model as it was; fine-tuning by its first steps. ``advice`` decides by the measurements.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from risen_plugin.commands.advise.advice import (
    ENOUGH_ROWS,
    DataMeasured,
    Measurements,
    RewardsMeasured,
)
from risen_plugin.commands.advise.fitting import fit_to_memory
from risen_plugin.commands.advise.machine import command_began, peak_memory
from risen_plugin.commands.advise.saving import save_every, saved_bytes, write_rate
from risen_plugin.commands.advise.timing import Seen, StopAt
from risen_plugin.commands.train.models import load_run, with_adapter
from risen_plugin.commands.train.rows import read_with_columns
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.commands.train.training import arguments, build, prepare, quieten
from risen_plugin.config import effective_grpo
from risen_plugin.config.grpo import steps_per_batch
from risen_plugin.contracts import text_of
from risen_plugin.progress import ADHERENCE, ENTER_S, GUARD_S, LEAVE_S, REINFORCE_S
from risen_plugin.rewards.adherence import grade, verdicts
from risen_plugin.training.answering import answers
from risen_plugin.training.asking import Asking, precision_of
from risen_plugin.training.clean_room import clean_room, finite_attention
from risen_plugin.training.protocols import Model, Tokenizer

_log = logging.getLogger("risen_plugin")
_MANY = 100_000  # steps, which the clock cuts short
_MOST_TUNING = 40
_JUDGED = 200  # recorded answers that are judged
_LONGEST_SEEN_IN = 64
_FEWEST_ROWS = 8
_SHARES = {"rewards": 0.45, "tune": 0.5, "tuned": 1.0}  # of what is left of the budget by then


@dataclass
class Measuring:
    """One measurement under way.

    :param draft: the run that is measured, as a mapping; afterwards with batches that fit.
    :param budget_s: seconds for everything, from the beginning of the command.
    :param available: bytes that may be used; None for all that are free.
    :param announce: called with the name of each stage as it begins.
    :param started: when the command began.
    """

    draft: Mapping[str, Any]
    budget_s: float
    available: int | None = None
    within_s: float | None = None
    risen_steps: int = 0
    announce: Callable[[str], None] = lambda stage: None
    started: float = field(default_factory=command_began)

    @finite_attention()
    def measure(self) -> Measurements:
        """Measure everything that the draft has.

        :raises RisenError: as ``risen train`` does for the draft.
        """
        quieten()
        with _silent():
            return self._measure()

    def _measure(self) -> Measurements:
        run = RunConfig.from_dict(self.draft, "risen advise")
        with self._folder() as folder:
            prepare(run, folder, quiet=True)
        self.announce("loading the model")
        model, tokenizer = load_run(run)
        start_s = self._spent()
        lacks_adapter = run.lora is None
        fitted = fit_to_memory(
            self.draft,
            model,
            tokenizer,
            instructions=() if run.risen is None else self._some_instructions(run),
            available=self.available,
        )
        memory, self.draft = fitted.memory, fitted.draft
        run = RunConfig.from_dict(self.draft, "risen advise")
        parameters = sum(p.numel() for p in model.parameters())
        measured = Measurements(
            parameters=parameters,
            memory=memory,
            start_s=start_s,
            within_s=self.within_s,
            risen_steps=self.risen_steps,
            fine_tune_steps=run.fine_tune.get("max_steps"),
            epochs=run.fine_tune.get("num_train_epochs"),
            spent_s=self._spent(),
        )
        if not memory.fits:
            return measured
        if lacks_adapter and run.lora is not None:
            if fitted.is_recast:
                del model  # it is loaded again, as it will be trained
                model, tokenizer = load_run(run)
            else:
                model = with_adapter(model, run.lora)
        if run.risen is not None:
            guard = run.risen.guard
            self.announce("answering instructions")
            rewards = self._rewards(run, model, tokenizer, self._share("rewards", run))
            novel = self._novel(run)
            measured = dataclasses.replace(
                measured,
                rewards=dataclasses.replace(rewards, novel=novel),
                guard_rows=guard.rows_apart + guard.report_rows,
                has_probe=run.risen.probe is not None or run.data is not None,
            )
        if run.data is not None:
            self.announce("fine-tuning on a slice")
            data, build_s = self._data(run, model, tokenizer)
            measured = dataclasses.replace(measured, data=data, start_s=start_s + build_s)
            if measured.rewards is not None and data.steps and self._lasts(measured.rewards):
                self.announce("answering instructions again, after the slice")
                tuned = self._rewards(run, model, tokenizer, self._share("tuned", run))
                measured = dataclasses.replace(measured, tuned=tuned)
        return dataclasses.replace(
            measured,
            memory=dataclasses.replace(memory, peak=peak_memory()),
            **self._writing(run, model, 0 if measured.data is None else measured.data.rows),
            spent_s=self._spent(),
        )

    # Parts ------------------------------------------------------------------------------------

    def _rewards(
        self, run: RunConfig, model: Model, tokenizer: Tokenizer, seconds: float
    ) -> RewardsMeasured:
        """Measure one phase that learns nothing, until its time is up."""
        assert run.risen is not None
        ends = time.perf_counter() + seconds
        rows = self._held_out(run, model, tokenizer, seconds)
        section = {
            **self.draft["risen"],
            "scheduler": {"use": "after", "options": {"steps": _MANY}},
            "guard": {
                **self.draft["risen"].get("guard", {}),
                **{"rows": rows, "most_rows": None, "report_rows": 0, "min_gain": 2.0},
            },
            "grpo": {**self.draft["risen"].get("grpo", {}), "learning_rate": 0.0},
            "reserve": None,  # families are reserved for what is reported, and nothing is
        }
        only = {"model": run.model, "risen": section, "seed": run.seed}
        measured = RunConfig.from_dict(only, "risen advise")
        assert measured.risen is not None
        steps_a_batch = steps_per_batch(effective_grpo(measured.risen.grpo))
        probe = [{"text": f"{text_of(row['prompt'])}\n\n"} for row in self._some_instructions(run)]
        measured = dataclasses.replace(
            measured, risen=dataclasses.replace(measured.risen, probe=probe, keep_entry=False)
        )
        with self._folder() as folder:
            prepared = prepare(measured, folder, quiet=True)
            callback = prepared.callback
            assert callback is not None
            trainer = build(prepared, model, tokenizer)
            seen = Seen(ends)
            with callback.run_state.panel.listening(seen.take):
                trainer.train()
            [phase] = [p for p in callback.phases if p.kind == "risen"]
        figures = phase.metrics
        return RewardsMeasured(
            held_out=rows,
            adherence=figures[f"{ADHERENCE}_before"],
            groups=len(seen.groups),
            k=seen.k,
            pass_at_1=seen.pass_at_1,
            pass_at_k=seen.pass_at_k,
            zero_variance=seen.zero_variance,
            tokens_s=seen.tokens / max(figures[REINFORCE_S], 1e-9),
            step_s=seen.step_s(figures[REINFORCE_S]) / steps_a_batch,
            measure_s=figures[GUARD_S] / rows,
            phase_s=figures[ENTER_S] + figures[LEAVE_S],
        )

    def _data(
        self, run: RunConfig, model: Model, tokenizer: Tokenizer
    ) -> tuple[DataMeasured, float]:
        """Measure the first steps of fine-tuning, and the seconds of building its Trainer."""
        followed = self._followed(run)
        quick = {
            **{
                k: v
                for k, v in run.fine_tune.items()
                if k not in ("num_train_epochs", "save_steps")
            },
            "eval_strategy": "no",
            "eval_on_start": False,
            "save_strategy": "no",
            "max_steps": _MOST_TUNING,
            "lr_scheduler_type": "constant",
        }
        alone = dataclasses.replace(run, risen=None, fine_tune=quick)
        with self._folder() as folder:
            prepared = prepare(alone, folder, quiet=True)
            rows = len(prepared.train_rows)
            batch = prepared.args.per_device_train_batch_size
            batch *= prepared.args.gradient_accumulation_steps
            if rows < ENOUGH_ROWS:
                return DataMeasured(rows, 0.0, 0.0, 0, batch, 0.0, 0.0, followed), 0.0
            began = time.perf_counter()
            trainer = build(prepared, model, tokenizer)
            built = time.perf_counter() - began
            before = trainer.evaluate()
            clock = StopAt(time.perf_counter() + self._share("tune", run))
            trainer.add_callback(clock)
            trainer.train()
            began = time.perf_counter()
            after = trainer.evaluate()
            evaluation_s = time.perf_counter() - began
        return DataMeasured(
            rows=rows,
            loss=before["eval_loss"],
            loss_after=after["eval_loss"],
            steps=trainer.state.global_step,
            batch=batch,
            step_s=clock.step_s,
            evaluation_s=evaluation_s,
            followed=followed,
        ), built

    def _writing(self, run: RunConfig, model: Model, rows: int) -> dict[str, Any]:
        """Seconds of writing a checkpoint and the final model, and steps between checkpoints."""
        with self._folder() as folder:
            args = arguments(run, folder, quiet=True)
            rate = write_rate(model, folder)
        saved, checkpoint = saved_bytes(model)
        return {
            "checkpoint_s": checkpoint / rate,
            "save_s": saved / rate,
            "save_every": save_every(args, rows),
        }

    def _held_out(self, run: RunConfig, model: Model, tokenizer: Tokenizer, seconds: float) -> int:
        """The number of held-out instructions that a quarter of the time is enough to answer."""
        assert run.risen is not None
        guard = run.risen.guard
        with self._folder() as folder:
            precision = precision_of(arguments(run, folder, quiet=True))
        asking = Asking(tokenizer, effective_grpo(run.risen.grpo), precision)
        some = self._some_instructions(run)[:_FEWEST_ROWS]
        began = time.perf_counter()
        with clean_room(model, tokenizer):
            answers(
                model,
                asking,
                [row["prompt"] for row in some],
                batch_size=guard.batch_size,
            )
        row_s = (time.perf_counter() - began) / len(some)
        most = guard.rows_apart + guard.report_rows
        return max(1, min(most, max(_FEWEST_ROWS, int(seconds / 4 / row_s))))

    def _followed(self, run: RunConfig) -> float | None:
        """The share of recorded answers that the rewards pass, of rows with the needed columns."""
        if run.risen is None or run.data is None:
            return None
        with self._folder() as folder:
            callback = prepare(run, folder, quiet=True).callback
        assert callback is not None
        rewards = [reward for reward in callback.run_state.parts.rewards if reward.grading.graded]
        rows, completions = [], []
        for row, columns in itertools.islice(read_with_columns(run.data), _JUDGED):
            if "prompt" in row and all(n in columns for r in rewards for n in r.needs):
                rows.append({**columns, "prompt": row["prompt"]})
                completions.append(row["completion"])
        if not rows:
            return None
        judged = [
            passed
            for passed in verdicts(rewards, grade(rewards, rows, completions))
            if passed is not None
        ]
        return sum(judged) / len(judged) if judged else None

    def _novel(self, run: RunConfig) -> float | None:
        """The share of the instructions with a constraint or family that no row of the data has."""
        if run.data is None:
            return None
        known: set[str] = set()
        for _, columns in read_with_columns(run.data):
            known |= _asked(columns)
        asked = [_asked(row) for row in self._some_instructions(run)]
        asked = [one for one in asked if one]
        if not asked or not known:
            return None
        return sum(not one <= known for one in asked) / len(asked)

    def _some_instructions(self, run: RunConfig) -> Sequence[Mapping[str, Any]]:
        from risen_plugin.instructions.rows import draw
        from risen_plugin.run.assembly import assemble

        assert run.risen is not None
        return draw(assemble(run.risen).generator, _LONGEST_SEEN_IN, run.seed, run_seed=run.seed)

    # Time -------------------------------------------------------------------------------------

    def _spent(self) -> float:
        return time.perf_counter() - self.started

    def _lasts(self, rewards: RewardsMeasured) -> bool:
        """Whether there is time to answer instructions again: two batches, and some held out."""
        needed = 3 * rewards.step_s + _FEWEST_ROWS * rewards.measure_s
        return self.budget_s - self._spent() > needed

    def _share(self, part: str, run: RunConfig) -> float:
        """Seconds of the remaining budget that a stage may take."""
        left = max(1.0, self.budget_s - self._spent())
        if part == "rewards" and run.data is None:
            return left
        if part == "tune" and run.risen is None:
            return left
        return left * _SHARES[part]

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="risen-advise-") as folder:
            yield Path(folder)


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the log lines of the measured phases."""
    level = _log.level
    _log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _log.setLevel(level)


def _asked(row: Mapping[str, Any]) -> set[str]:
    """The constraints that a row asks for, else its family."""
    ids = row.get("instruction_id_list") or ()
    if ids:
        return set(map(str, ids))
    return {str(row["family"])} if row.get("family") not in (None, "") else set()
