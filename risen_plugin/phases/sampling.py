"""Who samples the answers of a phase: TRL, or something outside of torch that is faster.

One that is named samples, or the phase is refused in one line. With ``auto`` both are measured when
a phase begins, and whoever cannot or is slower leaves the sampling to transformers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from risen_plugin.config.grpo import answers_per_batch, refused_setting
from risen_plugin.config.sections import AUTO, TRANSFORMERS
from risen_plugin.contracts import Rollout, Row
from risen_plugin.errors import ConfigError, RisenError, one_line, typed_line
from risen_plugin.kit.foreign import contained
from risen_plugin.phases.context import PhaseContext
from risen_plugin.plugins.offers import Built
from risen_plugin.training.adapters import base_of
from risen_plugin.training.answering import sampled_ids
from risen_plugin.training.asking import Asking
from risen_plugin.training.outside import Outside, unfit

_log = logging.getLogger("risen_plugin")
_TRIED_TOKENS = 16  # of each answer of the short measurement


class RolloutError(ConfigError):
    """What the configuration names cannot sample the answers of this run."""


@dataclass(frozen=True)
class Way:
    """How the answers of a phase are sampled.

    :param name: as a configuration names it.
    :param reason: why so, in one line; empty where it was simply asked for.
    :param outside: None where TRL samples.
    """

    name: str
    reason: str = ""
    outside: Outside | None = None


@dataclass(frozen=True)
class ChosenWay:
    """What ``auto`` has chosen, and why."""

    name: str
    reason: str = "as this phase began"


@contextmanager
def way_of(
    context: PhaseContext,
    asking: Asking,
    folder: Path,
    *,
    label: str | None = None,
    before: ChosenWay | None = None,
) -> Iterator[Way]:
    """The way of sampling of a phase that begins; what it holds is let go of at the end.

    :param folder: for the files of a sampler.
    :param label: of the phase, for the line that says why; None says nothing.
    :param before: what ``auto`` has chosen before, to keep to.
    :raises RolloutError: if what is named cannot sample here, in one line.
    """
    use = context.config.rollout.use
    if use == AUTO:
        way = _faster(context, asking, folder, before)
        if label is not None:
            context.say(f"{label}: rollout {way.name}: {way.reason}")
    elif context.rollouts:
        way = named_way(context, asking, folder)
    else:
        way = Way(use)
    try:
        yield way
    finally:
        if way.outside is not None:
            way.outside.close()


def named_way(context: PhaseContext, asking: Asking, folder: Path) -> Way:
    """The way that the configuration names; TRL's where that is ``auto``.

    :raises RolloutError: if it cannot sample here, in one line.
    """
    if context.config.rollout.use == AUTO or not context.rollouts:
        return Way(TRANSFORMERS)
    [built] = context.rollouts
    return Way(built.name, outside=_named(context, asking, built, folder))


def _named(context: PhaseContext, asking: Asking, built: Built, folder: Path) -> Outside:
    try:
        return _opened(context, asking, built, folder)
    except RisenError as error:
        raise RolloutError(
            f"rollout: {built.name} does not work here: {one_line(error).rstrip('.')}; "
            "rollout: transformers does, and auto takes the faster one that works"
        ) from error


def _opened(context: PhaseContext, asking: Asking, built: Built, folder: Path) -> Outside:
    """The sampler, made for the model as it is now.

    :raises RisenError: if it cannot be, in one line.
    """
    rollout = cast(Rollout, built.value)
    reason = refusal(context, asking.grpo) or _refused(rollout, context, built.label)
    if reason is not None:
        raise ConfigError(reason)
    with contained(lambda error: ConfigError(f"{built.label} failed: {typed_line(error)}")):
        sampler = rollout(
            model=context.model,
            tokenizer=context.tokenizer,
            folder=str(folder / built.name.replace("/", "-")),
            rows=answers_per_batch(asking.grpo),
        )
    outside = Outside(sampler, asking, context.model, built.label)
    try:
        _check_room(context, outside)
    except RisenError:
        outside.close()
        raise
    return outside


def refusal(context: PhaseContext, grpo: Mapping[str, Any]) -> str | None:
    """Why answers cannot be sampled outside of torch in this run, whoever does it."""
    if context.processes.count > 1:
        return f"the run has {context.processes.count} processes, and it samples in one alone"
    if (setting := refused_setting(grpo)) is not None:
        return f"{setting} is for TRL's own sampling; leave it out"
    reason = unfit(context.model)
    return None if reason is None else f"the adapter {reason}"


def _refused(rollout: Rollout, context: PhaseContext, label: str) -> str | None:
    base = base_of(context.model)
    # A model that was not loaded from anywhere does not name its class.
    config = {**base.config.to_dict(), "architectures": [type(base).__name__]}
    with contained(lambda error: ConfigError(f"{label} failed: {typed_line(error)}")):
        return rollout.refuses(config)


def _check_room(context: PhaseContext, outside: Outside) -> None:
    """Refuse a sampler that has no room for a held-out prompt with its answer."""
    held_out = context.instructions.held_out
    rows: Sequence[Row] = [*held_out.guard, *held_out.report, *held_out.unseen]
    longest = max((len(outside.asking.prompt_ids(row["prompt"])) for row in rows), default=0)
    if longest > outside.longest_prompt(longest):
        raise ConfigError(
            f"{outside.label} has room for {outside.sampler.context} tokens, and a held-out prompt "
            f"of {longest} with an answer of {outside.asking.answer_tokens} needs more"
        )


# auto


def _faster(context: PhaseContext, asking: Asking, folder: Path, before: ChosenWay | None) -> Way:
    """The faster way to a few tokens of one batch of answers, or that which was found before."""
    refusals = []
    if before is not None and before.name == TRANSFORMERS:
        return Way(TRANSFORMERS, before.reason)
    for built in context.rollouts:
        try:
            outside = _opened(context, asking, built, folder)
            if before is not None and built.name == before.name:
                return Way(built.name, before.reason, outside)
            return _measured(context, asking, outside, built.name)
        except RisenError as error:
            refusals.append(f"{built.name}: {one_line(error)}")
    return Way(TRANSFORMERS, "; ".join(refusals) or "nothing else is on offer")


def _measured(context: PhaseContext, asking: Asking, outside: Outside, name: str) -> Way:
    prompts = _batch(context, asking)
    tokens = min(_TRIED_TOKENS, asking.answer_tokens)
    answers = len(prompts)
    ours = _seconds(lambda: outside.tried(context.model, prompts, tokens))
    theirs = _seconds(lambda: sampled_ids(context.model, asking, prompts, tokens))
    took = f"{answers} answers of {tokens} tokens took {ours:.2g} s, {TRANSFORMERS} {theirs:.2g} s"
    if ours < theirs:
        return Way(name, took, outside)
    outside.close()
    return Way(TRANSFORMERS, f"{name}: {took}")


def _batch(context: PhaseContext, asking: Asking) -> list[list[int]]:
    """Prompts of held-out rows, in groups as a generation batch has them."""
    rows = context.instructions.held_out.guard
    group = int(asking.grpo["num_generations"])
    count = answers_per_batch(asking.grpo) // group
    asked = [asking.prompt_ids(rows[place % len(rows)]["prompt"]) for place in range(count)]
    return [ids for ids in asked for _ in range(group)]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Alarm:
    """Warns once in a phase where what is sampled is too far from the model in training.

    :param most: nats per token; None never warns.
    """

    def __init__(self, most: float | None, label: str) -> None:
        self.most = most
        self.label = label
        self.rung: tuple[int, float] | None = None

    def hear(self, step: int, kl: float | None) -> None:
        """Look at the mismatch of a GRPO step."""
        if kl is None or self.most is None or kl <= self.most or self.rung is not None:
            return
        self.rung = (step, kl)
        _log.warning(
            "%s, GRPO step %d: the sampler is %.3g nats per token away from the model in training, "
            "more than rollout.max_mismatch (%g); weights correct for it, and a finer precision "
            "would learn from answers that are more its own",
            self.label,
            step,
            kl,
            self.most,
        )
