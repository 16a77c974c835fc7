"""The sections of a configuration, one per concern: frozen data, checked when it is made.

Those of the guard are in ``guard``, those of the controllers in ``control``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from risen_plugin.config.choices import PluginOrName, read_mappings
from risen_plugin.errors import ConfigError
from risen_plugin.kit.checks import all_texts, check_between, check_whole, is_number, shown
from risen_plugin.kit.fields import checked_fields

TRANSFORMERS, VLLM, AUTO = "transformers", "vllm", "auto"


@checked_fields
@dataclass(frozen=True)
class CurriculumConfig:
    """How instructions are chosen from a pool of those known so far.

    :param initial: instructions asked of the generator before the first draw.
    :param refill: instructions asked of it again, every ``refill_every`` generation batches.
    :param refill_every: generation batches between refills.
    :param largest: the most instructions in the pool; no more are taken in then.
    :param strata: columns whose values group instructions, the widest group first. An instruction
        without answers is judged by its group. ``level`` is the number of constraints where a row
        has no such column.
    :param low: with ``high``, the band of pass rates that is worth most.
    :param high: the upper end of it.
    :param focus: how strongly the band is preferred: the power to which the worth of an instruction
        outside it is raised; 0 draws alike.
    :param optimism: standard deviations by which an uncertain pass rate is taken to be nearer to
        the band.
    :param prior: answers' worth of trust in the group, beside an instruction's own answers.
    :param half_life: generation batches after which an answer counts half.
    :param explore: share of the draws that are uniform over the pool.
    :param skip_base: an instruction whose last ``z`` visits gave no variance is passed over with
        the probability ``1 - max(skip_base ** z, skip_floor)``.
    :param skip_floor: the least probability of asking it all the same.
    :param most_skips: draws passed over per instruction of a batch, at the most.
    :param retire_after: visits without variance in a row after which an instruction is drawn no
        more; None for never.
    :param hindsight: whether a group of answers that all fail adds an instruction with only those
        constraints that its best answer met.
    """

    initial: int = 1024
    refill: int = 64
    refill_every: int = 8
    largest: int = 1_000_000
    strata: Sequence[str] = ("family", "level")
    low: float = 0.3
    high: float = 0.7
    focus: float = 1.0
    optimism: float = 0.25
    prior: float = 4.0
    half_life: float = 16.0
    explore: float = 0.05
    skip_base: float = 0.5
    skip_floor: float = 0.05
    most_skips: int = 8
    retire_after: int | None = None
    hindsight: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("initial", 1),
            ("refill", 0),
            ("refill_every", 1),
            ("largest", 1),
            ("most_skips", 0),
        ):
            check_whole(f"curriculum.{name}", getattr(self, name), least)
        if self.retire_after is not None:
            check_whole("curriculum.retire_after", self.retire_after, 1)
        for name in ("low", "high", "explore", "skip_base", "skip_floor"):
            check_between(f"curriculum.{name}", getattr(self, name), 0.0, 1.0)
        for name in ("focus", "optimism", "prior", "half_life"):
            check_between(f"curriculum.{name}", getattr(self, name), 0.0, math.inf)
        if not 0.0 < self.low <= self.high < 1.0:
            raise ConfigError(
                f"curriculum.low and curriculum.high are {self.low} and {self.high}; they are pass "
                "rates above 0 and below 1, low not above high"
            )
        for name in ("prior", "half_life"):
            if not getattr(self, name):
                raise ConfigError(f"curriculum.{name} is 0; it is a number above 0")
        if isinstance(self.strata, str) or not self.strata or not all_texts(self.strata):
            raise ConfigError(
                f"curriculum.strata is {self.strata!r}; it is a list of columns, such as "
                "[family, level]"
            )
        if not isinstance(self.hindsight, bool):
            raise ConfigError(f"curriculum.hindsight is {self.hindsight!r}; it is true or false")


@checked_fields
@dataclass(frozen=True)
class BreakerConfig:
    """When a phase ends at once because a reward fails too often.

    :param max_error_rate: largest share of errors that one reward may have among the latest scored
        answers of a phase, or all of them among the guard's; 1.0 never ends a phase in training.
    :param window: latest answers of a phase that the share is taken over; one generation batch at
        the least.
    """

    max_error_rate: float = 0.2
    window: int = 256

    def __post_init__(self) -> None:
        rate = self.max_error_rate
        if not is_number(rate) or not 0.0 <= rate <= 1.0:
            raise ConfigError(
                f"breaker.max_error_rate is {shown(rate)}; it is a share between 0 and 1"
            )
        check_whole("breaker.window", self.window, 1)


@checked_fields
@dataclass(frozen=True)
class GateConfig:
    """A bar of quality for answers that a verifiable reward passes.

    An answer that passes ``reward`` is worth 1 more if its quality is above the threshold, and
    0.5 less if not; the worth of one that does not pass stays.

    :param reward: the verifiable reward, by the name it has among ``rewards`` or as the object.
    :param quality: ``likelihood`` (the mean log-likelihood per token of the answer to the plain
        query under the model at phase entry), or a reward: a name, an object, :func:`use`.
    :param threshold: a quality, or ``auto`` for the ``quantile`` of the first answers of a phase.
    :param quantile: share of the entry model's answers that ``auto`` leaves below the bar.
    """

    reward: PluginOrName = "constraints"
    quality: PluginOrName = "likelihood"
    threshold: float | Literal["auto"] = "auto"
    quantile: float = 0.05

    def __post_init__(self) -> None:
        read_mappings(self, "gate", ("reward", "quality"))
        if self.threshold != "auto" and not (
            is_number(self.threshold) and math.isfinite(self.threshold)
        ):
            raise ConfigError(
                f"gate.threshold is {shown(self.threshold)}; it is a finite number, or 'auto'"
            )
        if not is_number(self.quantile) or not 0.0 <= self.quantile < 1.0:
            raise ConfigError(
                f"gate.quantile is {shown(self.quantile)}; it is a share from 0 to below 1"
            )


@checked_fields
@dataclass(frozen=True)
class BuffersConfig:
    """The answers that RISEN phases leave for fine-tuning, and how a burst uses them.

    :param largest: the most verified answers that are held, one per instruction; 0 for none.
    :param band: share of the passed answers of a group, above the first number and up to the
        second, in which its best answer is taken up.
    :param unsolved_after: visits without a passed answer, in a row, from which an instruction
        counts as unsolved.
    :param demonstrations: answers that a person wrote: rows with ``prompt`` and ``completion``, or
        the path of a JSON Lines file with them.
    :param own_share: share of the model's verified answers in a burst that has demonstrations too.
    :param batch_size: rows per optimizer step of a burst, over all processes.
    :param learning_rate: of a burst.
    :param min_gain: a burst is dropped that gains less than this in strict adherence (share of
        instructions) for sure; 0 means one that falls.
    :param max_probe_loss_rise: the largest rise of the probe loss that keeps a burst, in nats per
        token.
    """

    largest: int = 2048
    band: Sequence[float] = (0.0, 0.5)
    unsolved_after: int = 2
    demonstrations: str | Path | Sequence[Mapping[str, Any]] | None = None
    own_share: float = 0.5
    batch_size: int = 16
    learning_rate: float = 1e-4
    min_gain: float = 0.0
    max_probe_loss_rise: float = 0.01

    def __post_init__(self) -> None:
        for name, least in (("largest", 0), ("unsolved_after", 1), ("batch_size", 1)):
            check_whole(f"buffers.{name}", getattr(self, name), least)
        check_between("buffers.own_share", self.own_share, 0.0, 1.0)
        check_between("buffers.learning_rate", self.learning_rate, 0.0, math.inf)
        for name in ("min_gain", "max_probe_loss_rise"):
            check_between(f"buffers.{name}", getattr(self, name), -math.inf, math.inf)
        band = self.band
        if (
            isinstance(band, str)
            or not isinstance(band, Sequence)
            or len(band) != len(("low", "high"))
            or not all(is_number(bound) for bound in band)
            or not 0.0 <= band[0] < band[1] <= 1.0
        ):
            raise ConfigError(
                f"buffers.band is {band!r}; it is two shares of passed answers, the lower first, "
                "such as [0.0, 0.5]"
            )
        rows = self.demonstrations
        if not (rows is None or isinstance(rows, str | Path | Sequence)):
            raise ConfigError(
                f"buffers.demonstrations is of type {type(rows).__name__}; it is a list of rows, "
                "or the path of a JSON Lines file"
            )


@checked_fields
@dataclass(frozen=True)
class AnchorConfig:
    """How a phase holds the model to its own answers to plain prompts, which it trains beside.

    :param prompts: a JSON Lines file with ``prompt``, a list of prompts, or ``plain`` for those
        that come with the package. A row with an ``answer`` has this text read in place of the
        model's own answer.
    :param weight: of the mean KL divergence of the model at phase entry from the one in training,
        on its own likeliest answers, beside GRPO's loss.
    :param rows: answers that it is taken on in each GRPO step, over all processes.
    :param tokens: of an answer, at the most.
    :param likeliest: tokens at each place that are told apart; all others count as one.
    :param marks: whether a further kind of anchors is made of the same answers with marks put in
        at random, such as ``<<``, so that what constraints teach of a mark is learned where they
        ask for it alone.
    """

    prompts: str | Path | Sequence[Any] = "plain"
    weight: float = 1.0
    rows: int = 8
    tokens: int = 64
    likeliest: int = 64
    marks: bool = False

    def __post_init__(self) -> None:
        check_between("anchor.weight", self.weight, 0.0, math.inf)
        for name in ("rows", "tokens", "likeliest"):
            check_whole(f"anchor.{name}", getattr(self, name), 1)
        if not isinstance(self.marks, bool):
            raise ConfigError(f"anchor.marks is {shown(self.marks)}; it is true or false")
        prompts = self.prompts
        if not isinstance(prompts, str | Path | Sequence) or not prompts:
            raise ConfigError(
                f"anchor.prompts is {shown(prompts)}; it is the path of a JSON Lines file, a list "
                "of prompts, or plain for those of the package"
            )


@checked_fields
@dataclass(frozen=True)
class MendingConfig:
    """How a phase begins: with a short fine-tuning on answers of the model's own that were mended.

    The model answers questions greedily, without the constraints that go with them; what of an
    answer misses a constraint is edited as far as code can
    (:func:`risen_plugin.constraints.mending.mended`), and of what passes all rewards then the edits
    are learned. Instructions that no edit meets are asked again, with their constraints, a quarter
    as many as ``rows``, and what the model then meets is learned whole.

    :param rows: answers to learn from, at the most, and questions that are asked for them.
    :param tokens: of an answer, at the most.
    :param batch_size: answers of a step, over all processes.
    :param weight: of their loss beside the divergence from the anchors, where there are any.
    :param unedited: the weight of a token of the model's own in this loss, where an edited one has
        1.
    :param learning_rate: the highest; it falls to 0.
    """

    rows: int = 1600
    tokens: int = 80
    batch_size: int = 8
    weight: float = 1.0
    unedited: float = 0.02
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("rows", "tokens", "batch_size"):
            check_whole(f"mending.{name}", getattr(self, name), 1)
        check_between("mending.weight", self.weight, 0.0, math.inf)
        check_between("mending.unedited", self.unedited, 0.0, 1.0)
        check_between("mending.learning_rate", self.learning_rate, 0.0, 1.0)


@checked_fields
@dataclass(frozen=True)
class LoraSettings:
    """The temporary adapter of a phase on a plain model; see PEFT's ``LoraConfig``.

    :param target_modules: as in PEFT; ``all-linear`` takes every linear layer but the LM head.
    """

    r: int = 16
    alpha: int = 32
    target_modules: str | Sequence[str] = "all-linear"

    def __post_init__(self) -> None:
        check_whole("lora.r", self.r, 1)
        check_whole("lora.alpha", self.alpha, 1)
        targets = self.target_modules
        if not isinstance(targets, str) and not (targets and all_texts(targets)):
            raise ConfigError(
                f"lora.target_modules is {targets!r}; it is a text such as 'all-linear', or a "
                "list of module names"
            )


@checked_fields
@dataclass(frozen=True)
class RolloutConfig:
    """Who samples the answers of a phase.

    :param use: ``transformers``, ``vllm`` (TRL's ``use_vllm``), what a plugin offers such as
        ``onnx``, or ``auto``: the faster one of transformers and the first on offer that can, by a
        short measurement when a phase begins.
    :param options: of what a plugin offers, such as ``precision``.
    :param max_weight: the largest weight of a token by which the mismatch between its likelihoods
        where it was sampled and in training is corrected.
    :param max_mismatch: the mismatch in nats per token from which a warning is given; None for
        none.
    :param guard: whether the answers that the guard measures by come from it too.
    """

    use: str = TRANSFORMERS
    options: Mapping[str, Any] = field(default_factory=dict)
    max_weight: float = 2.0
    max_mismatch: float | None = 0.05
    guard: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.use, str) or not self.use:
            raise ConfigError(
                f"rollout.use is {shown(self.use)}; it is transformers, vllm, auto, or a name that "
                "`risen rollouts` lists, such as onnx"
            )
        if not isinstance(self.options, Mapping):
            raise ConfigError("rollout.options is not a mapping of names to values")
        if self.options and self.use in (TRANSFORMERS, VLLM):
            raise ConfigError(
                f"rollout.options has '{next(iter(self.options))}', and {self.use} takes no "
                "options here; its settings belong under grpo"
            )
        check_between("rollout.max_weight", self.max_weight, 1.0, math.inf)
        if self.max_mismatch is not None:
            check_between("rollout.max_mismatch", self.max_mismatch, 0.0, math.inf)
        if not isinstance(self.guard, bool):
            raise ConfigError(f"rollout.guard is {self.guard!r}; it is true or false")

    @property
    def is_outside(self) -> bool:
        """Whether something else than TRL may sample."""
        return self.use not in (TRANSFORMERS, VLLM)


def as_section(value: Any) -> Any:
    """``rollout: onnx`` as the section that it is short for."""
    return {"use": value} if isinstance(value, str) else value
