"""Recommend fine-tuning, RISEN, both or neither from measurements. Pure.

Fine-tune where there is good data that still teaches; RISEN where instructions change, or data is
short; both where the domain must be right and instructions vary. Every reason carries its number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Course: TypeAlias = Literal["fine_tune", "risen", "both", "nothing"]

ENOUGH_ROWS = 64  # fewer teach a model their wording
LEAST_DROP = 0.02  # of the held-out loss, relative: below it fine-tuning has stopped paying
ADHERENT = 0.95  # strict; the rest is within the noise of a guard's rows
LEAST_HEADROOM = 0.02  # pass@k above pass@1
NO_VARIANCE = 0.9  # share of groups without a difference, from which GRPO has nothing to learn
FOLLOWED = 0.9  # share of recorded answers that follow: fine-tuning teaches it then
NOVEL = 0.5  # share of the instructions that ask for what the data never asks
RISEN_STEPS = 40
EPOCHS_OF_FEW, EPOCHS_OF_MANY, MANY_ROWS = 3, 1, 2000
FINE_TUNE_SHARE = 0.6  # of the limited time, where both are done


@dataclass(frozen=True)
class DataMeasured:
    """The losses and times of a few fine-tuning steps on a slice of the data.

    :param rows: rows to train on.
    :param loss: on held-out rows, nats per token, as the model is.
    :param loss_after: the same after ``steps`` steps of ``batch`` rows.
    :param step_s: seconds of one optimizer step.
    :param evaluation_s: seconds of one evaluation.
    :param followed: share of recorded answers that the rewards pass; None where none judges them.
    """

    rows: int
    loss: float
    loss_after: float
    steps: int
    batch: int
    step_s: float
    evaluation_s: float
    followed: float | None = None

    @property
    def drop(self) -> float:
        """The fall of the held-out loss, as a share of that loss."""
        return (self.loss - self.loss_after) / self.loss if self.loss > 0 else 0.0


@dataclass(frozen=True)
class RewardsMeasured:
    """How the model follows the instructions, answered greedily and in groups of ``k``.

    :param held_out: instructions answered greedily.
    :param adherence: strict, greedy.
    :param pass_at_k: share of the groups with an answer that passes; ``pass_at_1`` of the answers.
    :param zero_variance: share of the groups whose answers all score the same.
    :param novel: share of the instructions with a constraint or family that no row of the data
        has; None where rows name neither.
    :param tokens_s: tokens sampled per second of a GRPO step.
    :param step_s: seconds of one GRPO step.
    :param measure_s: seconds of measuring one held-out instruction.
    :param phase_s: seconds of a phase beside its steps and measurements.
    """

    held_out: int
    adherence: float
    groups: int
    k: int
    pass_at_1: float
    pass_at_k: float
    zero_variance: float
    tokens_s: float
    step_s: float
    measure_s: float
    phase_s: float
    novel: float | None = None

    @property
    def headroom(self) -> float:
        """The gain of ``k`` sampled answers over one: pass@k less pass@1."""
        return self.pass_at_k - self.pass_at_1

    @property
    def is_learnable(self) -> bool:
        """Whether GRPO would see a difference between answers to the same instruction."""
        return self.zero_variance < NO_VARIANCE and self.pass_at_k > 0.0


@dataclass(frozen=True)
class MemoryMeasured:
    """Bytes: available, needed by the way of training that fits, and measured at the peak."""

    available: int
    needed: int
    peak: int = 0
    only_adapter: bool = False
    fits: bool = True


@dataclass(frozen=True)
class Measurements:
    """All measurements that the advice follows from.

    :param start_s: seconds until a model is loaded and ready.
    :param guard_rows: held-out instructions that are measured at each end of a phase.
    :param evaluations: the most evaluations during fine-tuning; one more comes before it and one
        after.
    :param tuned: the rewards measured again after the steps of ``data``; None where not done.
    :param checkpoint_s: seconds of writing a checkpoint; ``save_s`` of writing the final model.
    :param save_every: steps from one checkpoint to the next; below 1, their share of the run; 0
        for none.
    :param within_s: seconds that following the advice may take; None for no limit.
    :param risen_steps: GRPO steps that are wanted.
    :param fine_tune_steps: steps of fine-tuning that are wanted; None takes ``epochs``, and None
        there follows from the number of rows.
    :param has_probe: whether there are rows for the probe; else the model answers first.
    :param spent_s: seconds that measuring took.
    """

    parameters: int
    memory: MemoryMeasured
    start_s: float
    data: DataMeasured | None = None
    rewards: RewardsMeasured | None = None
    tuned: RewardsMeasured | None = None
    guard_rows: int = 128
    evaluations: int = 10
    checkpoint_s: float = 0.0
    save_s: float = 0.0
    save_every: float = 0.25
    within_s: float | None = None
    risen_steps: int = RISEN_STEPS
    fine_tune_steps: int | None = None
    epochs: float | None = None
    has_probe: bool = True
    spent_s: float = 0.0


@dataclass(frozen=True)
class Advice:
    """A course with its steps, its cost and the reasons for it.

    :param seconds: estimated time of following it, from the command to the saved model.
    :param memory: estimated bytes at the peak.
    """

    course: Course
    reasons: tuple[str, ...]
    fine_tune_steps: int = 0
    risen_steps: int = 0
    only_adapter: bool = False
    seconds: float = 0.0
    memory: int = 0
    schedule: dict[str, Any] = field(default_factory=dict)

    @property
    def in_words(self) -> str:
        """The advice in one line."""
        return {
            "fine_tune": f"fine-tune {self.fine_tune_steps} steps, without RISEN",
            "risen": f"RISEN alone, {self.risen_steps} GRPO steps",
            "both": f"fine-tune {self.fine_tune_steps} steps, then RISEN, "
            f"{self.risen_steps} GRPO steps",
            "nothing": "train nothing yet",
        }[self.course]


def recommend(m: Measurements) -> Advice:
    """The course that the measurements support, with steps, time and reasons."""
    if not m.memory.fits:
        return Advice("nothing", (_too_large(m.memory),), memory=m.memory.needed)
    pays, of_data = _data_pays(m.data)
    wanted, of_rewards = _risen_pays(m, pays=pays)
    course: Course = "both" if pays and wanted else "fine_tune" if pays else "nothing"
    if wanted and not pays:
        course = "risen"
    return _planned(m, course, (*of_data, *of_rewards, *_of_memory(m.memory)))


def scheduler_for(course: Course, risen_steps: int) -> dict[str, Any]:
    """The scheduler of a course, as a configuration names it; empty without RISEN."""
    if course not in ("risen", "both"):
        return {}
    return {"use": "after", "options": {"steps": risen_steps}}


def _data_pays(data: DataMeasured | None) -> tuple[bool, tuple[str, ...]]:
    if data is None:
        return False, ("there is no data to fine-tune on",)
    measured = (
        f"{data.steps} steps on {data.rows} rows take the held-out loss from {data.loss:.4f} to "
        f"{data.loss_after:.4f} ({-data.drop:+.1%})"
    )
    if data.rows < ENOUGH_ROWS:
        return False, (
            f"{data.rows} rows are too few to fine-tune on (from {ENOUGH_ROWS}); they serve to "
            "measure retention",
        )
    if data.drop < -LEAST_DROP:
        return False, (
            f"{measured}: it rises, so the data has nothing left to teach, or the learning rate is "
            "too high",
        )
    if data.drop < LEAST_DROP:
        return False, (f"{measured}: the data has little left to teach (from {LEAST_DROP:.0%})",)
    return True, (f"{measured}: fine-tuning pays",)


def _risen_pays(m: Measurements, *, pays: bool) -> tuple[bool, tuple[str, ...]]:
    now = m.rewards
    if now is None:
        return False, ("there are no instructions with rewards, so RISEN has nothing to go by",)
    then = m.tuned if pays and m.tuned is not None else now
    after = "after these steps " if then is not now else ""
    measured = f"{after}{then.adherence:.0%} of {then.held_out} instructions are followed"
    novel = now.novel
    reasons = []
    if novel is not None and novel >= NOVEL:
        reasons.append(f"{novel:.0%} of the instructions ask for what the data never asks for")
    if then.adherence >= ADHERENT:
        return False, (*reasons, f"{measured} already: RISEN has little to gain")
    if not then.is_learnable:
        solved = f"{then.pass_at_k:.0%} of {then.groups} have a passing answer among {then.k}"
        same = f"{then.zero_variance:.0%} have answers that all score the same"
        advice = (
            "fine-tune first and ask again"
            if pays
            else "give easier instructions, a reward with partial scores, or demonstrations"
        )
        return False, (*reasons, f"{measured}, {solved}, {same}: no reward to learn from; {advice}")
    followed = m.data.followed if m.data is not None else None
    if pays and followed is not None and followed >= FOLLOWED and not (novel and novel >= NOVEL):
        return False, (
            *reasons,
            f"{followed:.0%} of the recorded answers follow their instructions: fine-tuning "
            "teaches that too",
        )
    room = (
        f"{measured} by the likeliest answer; of {then.k} sampled answers one follows in "
        f"{then.pass_at_k:.0%}, a single one in {then.pass_at_1:.0%}"
    )
    if then.headroom < LEAST_HEADROOM:
        return False, (*reasons, f"{room}: nothing more to reinforce")
    if pays and followed is not None:
        reasons.append(f"only {followed:.0%} of the recorded answers follow their instructions")
    seen = f"{1 - then.zero_variance:.0%} of the groups show a difference to learn from"
    return True, (*reasons, f"{room}, and {seen}: RISEN pays")


def _planned(m: Measurements, course: Course, reasons: tuple[str, ...]) -> Advice:
    """The course with steps that fit the time limit, and the seconds and bytes that they take."""
    rewards = (m.tuned if course == "both" and m.tuned is not None else m.rewards) or None
    tune_s = risen_s = fixed_risen = evaluation_s = 0.0
    if course in ("fine_tune", "both") and m.data is not None:
        tune_s, evaluation_s = m.data.step_s, m.data.evaluation_s
    if course in ("risen", "both") and rewards is not None:
        risen_s = rewards.step_s
        fixed_risen = rewards.phase_s + (2 if m.has_probe else 3) * (
            m.guard_rows * rewards.measure_s
        )
    tune = _fine_tune_steps(m) if tune_s else 0
    risen = m.risen_steps if risen_s else 0

    def fixed(steps: int) -> float:
        written = checkpoints(steps, m.save_every) if steps else 1
        beside = _evaluations(steps, m.evaluations) * evaluation_s + written * m.checkpoint_s
        return m.start_s + m.save_s + beside + fixed_risen

    if m.within_s is not None:
        left = max(0.0, m.within_s - fixed(tune))
        share = FINE_TUNE_SHARE if course == "both" else 1.0
        if tune_s:
            tune = max(1, min(tune, int(left * share / tune_s)))
        if risen_s:
            risen = max(1, min(risen, int((left - tune * tune_s) / risen_s)))
    seconds = tune * tune_s + risen * risen_s + fixed(tune)
    if course == "nothing":
        seconds = 0.0
    elif m.within_s is not None and seconds > m.within_s:
        reasons = (*reasons, f"{m.within_s:.0f} s are hardly enough: {seconds:.0f} s at the least")
    return Advice(
        course,
        reasons,
        fine_tune_steps=tune,
        risen_steps=risen,
        only_adapter=m.memory.only_adapter and course != "nothing",
        seconds=seconds,
        memory=max(m.memory.peak, m.memory.needed),
        schedule=scheduler_for(course, risen),
    )


def _evaluations(steps: int, at_most: int) -> int:
    """Evaluations of a run: before, after each so many steps, and at the end of everything."""
    return 2 + steps // math.ceil(steps / at_most) if steps else 0


def checkpoints(steps: int, every: float) -> int:
    """Checkpoints of a run: after each so many steps, and at its end."""
    if not every:
        return 0
    between = math.ceil(every * steps if every < 1 else every)
    return math.ceil(steps / between)


def _fine_tune_steps(m: Measurements) -> int:
    assert m.data is not None
    if m.fine_tune_steps is not None:
        return m.fine_tune_steps
    epochs = m.epochs
    if epochs is None:
        epochs = EPOCHS_OF_MANY if m.data.rows >= MANY_ROWS else EPOCHS_OF_FEW
    return max(1, int(epochs * m.data.rows // m.data.batch))


def _of_memory(memory: MemoryMeasured) -> tuple[str, ...]:
    if not memory.only_adapter:
        return ()
    return (
        f"training every weight does not fit into {_size(memory.available)}; an adapter does, in "
        f"{_size(memory.needed)}",
    )


def _too_large(memory: MemoryMeasured) -> str:
    return (
        f"{_size(memory.available)} of memory are available, and even an adapter on one row at a "
        f"time needs {_size(memory.needed)}: take a smaller model, or a larger machine"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
