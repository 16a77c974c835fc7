"""How long a phase will take: what it does, times how long each of it was measured to take. Pure.

The measuring is in ``timing``. What cannot be known beforehand is assumed, each number with where
it comes from: how many answers a reward tells apart, and how many facts the model knows.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.builtin.generators.anchor_prompts import wanted_of_a_kind
from risen_plugin.config import AnchorConfig, ControlConfig, GuardConfig, MendingConfig
from risen_plugin.config.grpo import answers_per_batch, steps_per_batch
from risen_plugin.config.guard import AUTO
from risen_plugin.guard.looks import RowPlan
from risen_plugin.guard.rules import PhaseStart, ZeroVariance
from risen_plugin.instructions.plain import PLAIN

_LEARNED, _BELIEVED = 0.7, 4
"""Share of the groups of answers whose scores differ, and of how many groups it counts as much as
those that were seen: 0.71 in 55 steps on SmolLM2-135M."""
_SUMMED = ("cispo", "dapo", "vespo")  # losses that leave out what has no advantage
_FACT_TOKENS = 48
_FACTS = 76  # that come with the package
_PLAIN, _ANCHORS = 525, (525, 260, 100)  # prompts of the package, and of anchors by their kind
AGAIN = 4
"""One in so many of the mended answers that are wanted is asked for again, with its constraints."""
_CHANCES = 100
_FEWER = 0.9  # share of the steps below which a phase is said to take up to so many
_KNOWN = 0.7  # of them by SmolLM2-135M (53), so that many are asked again


@dataclass(frozen=True)
class Pace:
    """Seconds of what a phase does again and again.

    :param batch_s: sampling the answers of one generation batch, the scoring left out.
    :param update_s: one forward and backward pass of as many answers as go through it at once.
    :param greedy_s: a greedy answer to a held-out row, by whoever answers for the guard.
    :param own_s: the same by the model itself.
    :param loss_s: the loss of one answer.
    :param groups: of answers that were sampled, of which the scores of ``differ`` differed.
    """

    batch_s: float
    update_s: float
    greedy_s: float
    own_s: float
    loss_s: float
    groups: int = 0
    differ: int = 0

    @property
    def learned(self) -> float:
        """Share of the groups whose answers can be learned from."""
        return (_LEARNED * _BELIEVED + self.differ) / (_BELIEVED + self.groups)


@dataclass(frozen=True)
class Work:
    """What a phase does, and what is done for it before.

    :param steps: of the optimizer.
    :param answers: that are sampled for each of them, in so many ``groups``.
    :param batches: generation batches in all.
    :param passes: forward and backward passes in all.
    :param skips: whether answers of groups that scored alike are left out of them.
    :param greedy: greedy answers of full length to held-out rows, both ends together.
    :param own: the same for a probe of the model's own answers.
    :param losses: answers whose loss is taken, both ends together.
    :param before: forward and backward passes on mended answers, before the first step.
    """

    steps: int
    answers: int
    groups: int
    batches: float
    passes: float
    skips: bool
    greedy: float
    own: int
    losses: int
    before: float = 0.0


@dataclass(frozen=True)
class Expected:
    """The seconds that a phase is expected to take, by their kind.

    :param steps: after which it is likely to end, not more than it is to take.
    """

    work: Work
    steps: float
    training_s: float
    measuring_s: float

    @property
    def seconds(self) -> float:
        return self.training_s + self.measuring_s

    def __str__(self) -> str:
        """One line for people."""
        upto = "up to " if self.steps < _FEWER * self.work.steps else ""
        steps = f"{upto}{self.work.steps} step{'' if self.work.steps == 1 else 's'}"
        return (
            f"the phase takes {about(self.seconds)}: {steps} of {self.work.answers} answers "
            f"({short(self.training_s)}), measuring before and after ({short(self.measuring_s)})"
        )


@dataclass(frozen=True)
class Foretold:
    """What was said of a run's first phase before it began.

    :param at: when, on the clock of ``time.perf_counter``.
    :param way: who was found to sample its answers, and ``reason`` why so.
    """

    expected: Expected
    at: float
    way: str
    reason: str = ""


def expected(pace: Pace, work: Work, control: ControlConfig) -> Expected:
    """The seconds that the work takes at this pace.

    :param control: which may end the phase early, where too many groups score all the same.
    """
    steps = likely_steps(work.steps, work.groups, pace.learned, control)
    passes = work.passes * (pace.learned if work.skips else 1.0)
    whole_s = work.batches * pace.batch_s + passes * pace.update_s
    return Expected(
        work,
        steps,
        training_s=whole_s * steps / work.steps + work.before * pace.update_s,
        measuring_s=(
            work.greedy * pace.greedy_s + work.own * pace.own_s + work.losses * pace.loss_s
        ),
    )


def likely_steps(steps: int, groups: int, learned: float, control: ControlConfig) -> float:
    """After how many of ``steps`` the controller is likely to end a phase.

    :param groups: of answers at each step.
    :param learned: share of them whose scores differ.
    """
    most = control.max_zero_variance
    if most is None:
        return float(steps)
    rng = random.Random(0)

    def end() -> int:
        rule = ZeroVariance(most, control.window)
        rule.begin(PhaseStart())
        for step in range(1, steps + 1):
            tied = sum(rng.random() >= learned for _ in range(groups)) / groups
            if rule.observe(step, {"frac_reward_zero_std": tied}).stop is not None:
                return step
        return steps

    return statistics.median(end() for _ in range(_CHANCES))


def longest_of(lengths: Sequence[int], size: int) -> float:
    """The length of the longest answer of a batch of ``size``, of which some were seen: a mean.

    A rare answer without end is in some batches and not in others.

    >>> longest_of([20, 20, 20, 120], 1), longest_of([20, 20, 20, 120], 4)
    (45.0, 88.359375)
    """
    ranked = sorted(lengths)
    chances = [(place / len(ranked)) ** size for place in range(len(ranked) + 1)]
    return sum(
        length * (upto - below)
        for length, below, upto in zip(ranked, chances, chances[1:], strict=False)
    )


def work_of(
    steps: int,
    grpo: Mapping[str, Any],
    guard: GuardConfig,
    rows: RowPlan,
    *,
    beside: int,
    own: int = 0,
    probe: int = 0,
    anchor: AnchorConfig | None = None,
    mending: MendingConfig | None = None,
) -> Work:
    """The work of one phase.

    :param grpo: its fields of ``GRPOConfig``.
    :param rows: the guard's. Between the first look and the last the guard stops where it is sure,
        so half of those rows are counted.
    :param beside: further held-out rows, which decide nothing or are of a task.
    :param own: rows that the model answers for a probe.
    :param probe: probe rows.
    :param anchor: of which each step takes some rows, as far as there are those of the package.
    :param mending: for which as many questions are answered as it has rows, as far as there are
        those of the package, and as many answers learned from as it has rows, all of full length.
    """
    batches = steps / steps_per_batch(grpo)
    passes = steps * int(grpo.get("gradient_accumulation_steps") or 1)
    answers = round(answers_per_batch(grpo) * batches / steps)
    skips = not grpo.get("beta") and grpo.get("loss_type", "dapo") in _SUMMED
    asked = _FACTS if guard.facts == AUTO else min(int(guard.facts), _FACTS)
    facts = asked * (1.0 + _KNOWN) * min(1.0, _FACT_TOKENS / int(grpo["max_completion_length"]))
    looks = 0 if not guard.every else (steps - 1) // guard.every
    greedy = rows.first + rows.most + 2 * beside + facts + looks * rows.first + guard.kl_samples
    first = 0 if mending is None else -(-mending.rows // mending.batch_size)
    said, held = (0, 0) if anchor is None else _anchors(anchor, max(steps, first))
    if anchor is not None:
        greedy += said * min(1.0, anchor.tokens / int(grpo["max_completion_length"]))
    drafts = learned = 0.0  # of GRPO's length
    if mending is not None:
        length = mending.tokens / int(grpo["max_completion_length"])
        drafts = (min(mending.rows, _PLAIN) + mending.rows // AGAIN) * length
        learned = mending.rows * length
    return Work(
        steps,
        answers,
        max(1, answers // int(grpo["num_generations"])),
        batches,
        passes,
        skips,
        greedy + drafts,
        own,
        (2 + looks) * (probe + guard.kl_samples) + held,
        learned / int(grpo["per_device_train_batch_size"]),
    )


def _anchors(anchor: AnchorConfig, steps: int) -> tuple[int, int]:
    """How many prompts are answered for anchors, and how many anchors are made of the answers.

    A file of the reader's own is taken to have enough for them.
    """
    prompts = anchor.prompts
    kinds: Sequence[int] = _ANCHORS
    if isinstance(prompts, Path) or (isinstance(prompts, str) and prompts != PLAIN):
        kinds = (steps * anchor.rows,)
    elif not isinstance(prompts, str):
        kinds = (len(prompts),)
    each = wanted_of_a_kind(len(kinds) + anchor.marks, anchor.rows, steps)
    said = sum(min(each, kind) for kind in kinds)
    return said, said + (min(each, said) if anchor.marks else 0)


def about(seconds: float) -> str:
    """Seconds in words, as exactly as they are known.

    >>> about(52), about(410), about(2040), about(8400)
    ('about 50 seconds', 'about 7 minutes', 'about 34 minutes', 'about 2 h 20 min')
    """
    if seconds < 90:
        return f"about {max(5, round(seconds / 5) * 5)} seconds"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"about {minutes} minutes"
    hours, rest = divmod(round(minutes, -1), 60)
    return f"about {hours} h {rest} min" if rest else f"about {hours} h"


def short(seconds: float) -> str:
    """Seconds in a bracket.

    >>> short(7.2), short(420)
    ('7 s', '7 min')
    """
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
