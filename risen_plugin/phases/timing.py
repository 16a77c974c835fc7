"""Measure how fast a phase would go, on the smallest part of it, and leave no trace of it.

As many steps as there is time for, or a part of the first, are taken through TRL's own trainer,
with the rows, batches, sampler and rewards that the phase will have. The model, its adapter, the
random states, the rewards' own states and files are as they were, by bits.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from risen_plugin.contracts import Completion, Row, Stateful
from risen_plugin.instructions.rows import derived_seed
from risen_plugin.phases.anchoring import make_anchors
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.duration import Pace, longest_of
from risen_plugin.phases.rehearsal import StandIn, quiet_libraries
from risen_plugin.phases.sampling import way_of
from risen_plugin.rewards.adherence import score, totals
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.training.adapters import Snapshot
from risen_plugin.training.answering import TimedAnswers, encoded_answer, timed_answers
from risen_plugin.training.asking import Asking, in_precision, precision_of
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import Plan, build_trainer, train
from risen_plugin.training.losses import row_losses
from risen_plugin.training.outside import Outside

_ENOUGH_S = 4.0  # of steps; one generation batch and one backward pass are measured in any case
_MOST_STEPS = 6
_GREEDY_S = 3.0  # of greedy answers, beside reading their prompts
_GREEDY_BATCHES = 3  # of them, since one with a rare answer without end is long
_TOKENS = 16  # of the answers by which those from outside of torch are timed
_LOSSES = 8  # answers
_PARTS = 4  # of the measuring, for its bar


@dataclass(frozen=True)
class Timed:
    """What was measured.

    :param way: who sampled, as a configuration names it, and ``reason`` why so.
    """

    pace: Pace
    way: str
    reason: str


def timed(context: PhaseContext, grpo: Mapping[str, Any], steps: int, folder: Path) -> Timed:
    """The pace of a phase of ``steps`` steps with these fields of ``GRPOConfig``.

    :param folder: for the files of a sampler, which the phase finds there.
    :raises RisenError: if what is named cannot sample here, or a reward fails.
    """
    model, tokenizer = context.model, context.tokenizer
    asking = Asking(tokenizer, grpo, precision_of(context.args))
    bar = tqdm(total=_PARTS, desc="how long it takes", leave=False, disable=context.quiet)
    with (
        bar,
        quiet_libraries(),
        tempfile.TemporaryDirectory(prefix="risen-") as scratch,
        clean_room(model, tokenizer, *context.others),
        Snapshot(model) as snapshot,
        way_of(context, asking, folder) as way,
    ):
        bar.update()
        own_s = _own_s(context, asking)
        bar.update()
        laps = _Laps()
        with _same_states(context.rewards):
            _steps(context, asking, min(steps, _MOST_STEPS), way.outside, scratch, laps)
        bar.update()
        greedy_s, length = own_s, round(statistics.fmean(laps.lengths))
        if way.outside is not None and context.config.rollout.guard:
            greedy_s = _outside_s(context, way.outside, length)
        snapshot.restore()
        loss_s = _loss_s(context, asking, length)
        bar.update()
    gc.collect()  # a trainer and its adapter hold each other in cycles
    pace = Pace(
        # A rare answer without end makes a whole batch long.
        batch_s=statistics.median(laps.batches),
        update_s=statistics.median(laps.updates),
        greedy_s=greedy_s,
        own_s=own_s,
        loss_s=loss_s,
        groups=len(laps.differ),
        differ=sum(laps.differ),
    )
    return Timed(pace, way.name, way.reason)


class _EnoughError(Exception):
    """As much was measured as there is time for."""


@dataclass
class _Laps(TrainerCallback):
    """The time of sampling and scoring, which begins when rows are asked for, and of each update.

    :param lengths: tokens of the answers.
    :param differ: of each group, whether the rewards tell its answers apart.
    """

    ends: float = 0.0
    last: float = 0.0
    batches: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    differ: list[bool] = field(default_factory=list)

    def begin(self) -> None:
        self.last = time.perf_counter()

    def lap(self, laps: list[float]) -> None:
        now = time.perf_counter()
        laps.append(now - self.last)
        self.last = now

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.on_step_end(args, state, control, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.lap(self.updates)
        if self.last >= self.ends:
            raise _EnoughError


class _Judge(StandIn):
    """Asks the rewards, and tells TRL that all answers differ, so that each is learned from."""

    def __init__(self, rewards: Sequence[NamedReward], laps: _Laps) -> None:
        self.rewards = rewards
        self.laps = laps
        self.rows: list[Row] = []  # of the batch that is sampled now, one for each group

    def __call__(
        self, *, prompts: list[Any], completions: list[Completion], **columns: Any
    ) -> list[float]:
        ids, state = columns["completion_ids"], columns.get("trainer_state")
        group = len(completions) // len(self.rows)
        rows = [row for row in self.rows for _ in range(group)]
        scores = score(self.rewards, rows, completions, completion_ids=ids, trainer_state=state)
        worth = totals(self.rewards, scores)
        self.laps.lap(self.laps.batches)
        self.laps.lengths += map(len, ids)
        self.laps.differ += [
            len(set(worth[first : first + group])) > 1 for first in range(0, len(worth), group)
        ]
        return super().__call__(prompts=prompts, completions=completions)


def _steps(  # noqa: PLR0917 what is trained, how, and where the time goes
    context: PhaseContext,
    asking: Asking,
    steps: int,
    outside: Outside | None,
    scratch: str,
    laps: _Laps,
) -> None:
    """Take some steps on held-out rows, with the anchors of one of them."""
    seed = derived_seed(context.config.seed, "timing", 0)
    answers = outside if context.config.rollout.guard else None
    anchors = make_anchors(context, asking, "anchors", steps=1, seed=seed, outside=answers)
    held_out = context.instructions.held_out.guard
    judge, place = _Judge(context.rewards, laps), 0
    plan = Plan(
        steps=steps,
        grpo=asking.grpo,
        lora=context.config.lora,
        seed=seed,
        output_dir=scratch,
        label="",
        quiet=True,
        max_weight=context.config.rollout.max_weight,
    )

    def supply(count: int) -> list[Row]:
        nonlocal place
        judge.rows = [held_out[(place + index) % len(held_out)] for index in range(count)]
        place += count
        laps.begin()
        return judge.rows

    trainer = build_trainer(
        context.model,
        context.tokenizer,
        [judge],
        supply,
        outer=context.args,
        plan=plan,
        outside=outside,
        anchors=anchors,
    )
    laps.ends = time.perf_counter() + _ENOUGH_S
    with suppress(_EnoughError):
        train(trainer, plan, steering=laps)


@contextmanager
def _same_states(rewards: Sequence[NamedReward]) -> Iterator[None]:
    """Put the states of rewards that keep one back at the end."""
    asked: list[Any] = [one.reward for one in rewards]
    kept = [reward for reward in asked if isinstance(reward, Stateful)]
    states = [one.state_dict() for one in kept]
    try:
        yield
    finally:
        for one, state in zip(kept, states, strict=True):
            one.load_state_dict(state)


def _own_s(context: PhaseContext, asking: Asking) -> float:
    """Seconds of one greedy answer, of as many as are answered at once."""
    found: list[TimedAnswers] = []
    size, ends = len(_prompts(context, asking)), time.perf_counter() + _GREEDY_S
    for batch in range(_GREEDY_BATCHES):
        prompts = _prompts(context, asking, batch)
        if len(prompts) < size or (found and time.perf_counter() > ends):
            break
        found.append(timed_answers(context.model, asking, prompts, _GREEDY_S))
    longest = longest_of([length for one in found for length in one.lengths], size)
    first_s = statistics.fmean(one.first_s for one in found)
    token_s = statistics.fmean(one.token_s for one in found)
    return (first_s + token_s * (longest - 1)) / size


def _outside_s(context: PhaseContext, outside: Outside, tokens: int) -> float:
    """Seconds of one answer of so many tokens from outside of torch."""
    prompts = _prompts(context, outside.asking)
    most = min(_TOKENS, outside.asking.answer_tokens)

    def of(length: int) -> float:
        return _seconds(lambda: outside.tried(context.model, prompts, length))

    first = of(1)
    each = max(0.0, of(most) - first) / max(1, most - 1)
    return (first + each * (tokens - 1)) / len(prompts)


def _loss_s(context: PhaseContext, asking: Asking, tokens: int) -> float:
    """Seconds of the loss of one answer of so many tokens."""
    prompts = _prompts(context, asking)[:_LOSSES]
    rows = [encoded_answer(ids, (ids * tokens)[:tokens]) for ids in prompts]

    def take() -> None:
        row_losses(context.model, rows, batch_size=len(rows))

    with in_precision(context.model, asking.precision):
        _seconds(take)  # the first of a shape takes longer
        return _seconds(take) / len(rows)


def _prompts(context: PhaseContext, asking: Asking, batch: int = 0) -> list[list[int]]:
    """Prompts of held-out rows, as many as are answered at once."""
    most = context.config.guard.batch_size
    rows = context.instructions.held_out.guard[batch * most : (batch + 1) * most]
    return [asking.prompt_ids(row["prompt"]) for row in rows]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
