"""Anchors: the model's own answers to plain prompts, to which a phase holds its distribution.

Reinforcement by a few prompts changes answers everywhere: rewarded for quotation marks where they
are asked for, a small model puts them around every answer. Beside GRPO's loss a phase takes the KL
divergence of the model at its entry from the model in training, on tokens of answers that nothing
was asked of in form. The entry model's distributions are kept as their likeliest tokens and the
rest as one, so that no second model, and no forward pass of one, is needed in a step. The
divergence of such joined outcomes is never above the whole one.

The idea is that of learning without forgetting (Li and Hoiem 2016): distillation from the model as
it was, on inputs that the new task does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

from risen_plugin.training.answering import same_modes
from risen_plugin.training.asking import in_precision
from risen_plugin.training.protocols import Model
from risen_plugin.training.reading import logits_from

_TOGETHER = 4  # anchors of a forward pass


@dataclass(frozen=True)
class Anchor:
    """An answer of the model at phase entry, and what else it might have said at each token.

    :param ids: token ids of prompt and answer.
    :param first: where the answer begins.
    :param likely: (T, K) the likeliest tokens at each token of the answer.
    :param logps: (T, K) their log-likelihoods.
    """

    ids: list[int]
    first: int
    likely: torch.Tensor
    logps: torch.Tensor


@torch.no_grad()
def anchored(
    model: Model,
    answered: Sequence[tuple[list[int], list[int]]],
    *,
    likeliest: int,
    batch_size: int,
    precision: torch.dtype | None,
    progress: str | None = None,
) -> list[Anchor]:
    """The anchors of prompts and answers, by the model as it is now.

    :param answered: token ids of each prompt and of its answer, which is not empty.
    :param likeliest: tokens of which the likelihood is kept, of each place.
    :param precision: that the model computes in; None for the weights' own.
    :param progress: the label of a progress bar; None shows none.
    """
    made: list[Anchor] = []
    bar = tqdm(
        total=len(answered), desc=progress, unit="row", leave=False, disable=progress is None
    )
    with bar, same_modes(model), in_precision(model, precision):
        model.eval()
        for start in range(0, len(answered), batch_size):
            batch = answered[start : start + batch_size]
            rows = [[*asked, *answer] for asked, answer in batch]
            before = min(len(asked) for asked, _ in batch) - 1
            logits = logits_from(model, rows, before)
            for row, (asked, answer) in enumerate(batch):
                told = logits[row, len(asked) - 1 - before :][: len(answer)]
                logps, likely = torch.log_softmax(told.float(), dim=-1).topk(
                    min(likeliest, told.shape[-1])
                )
                made.append(Anchor(rows[row], len(asked), likely.cpu(), logps.cpu()))
            bar.update(len(batch))
    return made


def divergence(model: Model, anchors: Sequence[Anchor]) -> torch.Tensor:
    """For each anchor, the mean KL divergence of the model now from the one that it was made by.

    Shape (anchors,), in nats per token, with a gradient; the tokens beyond the likeliest count as
    one. Those of about the same length go through the model together, which saves padding.
    """
    order = sorted(range(len(anchors)), key=lambda at: len(anchors[at].ids))
    found: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), _TOGETHER):
        places = order[start : start + _TOGETHER]
        before = min(anchors[at].first for at in places) - 1
        logits = logits_from(model, [anchors[at].ids for at in places], before)
        for at, row in zip(places, logits, strict=True):
            found[at] = _divergence(anchors[at], row[anchors[at].first - 1 - before :])
    return torch.stack([found[at] for at in range(len(anchors))])


def _divergence(anchor: Anchor, logits: torch.Tensor) -> torch.Tensor:
    """Of one anchor, by the logits of its answer's tokens and perhaps more after them, (T, V)."""
    told = logits[: len(anchor.ids) - anchor.first].float()
    now = torch.log_softmax(told, dim=-1).gather(-1, anchor.likely.to(told.device))
    then = anchor.logps.to(told.device)
    kl = (then.exp() * (then - now)).sum(dim=-1)
    rest_then, rest_now = _rest(then), _rest(now)
    return (kl + rest_then.exp() * (rest_then - rest_now)).mean()


def _rest(logps: torch.Tensor) -> torch.Tensor:
    """The log-likelihood of all tokens but these, (T,); bounded below, where nothing is left."""
    return torch.log((1.0 - logps.exp().sum(dim=-1)).clamp(min=1e-6))


@dataclass(frozen=True)
class Anchors:
    """Anchors of a phase, and how they are used.

    :param kinds: the anchors by the kind of their prompts; the kinds take turns.
    :param each_step: how many are read in an optimizer step of this process.
    :param weight: of their mean divergence beside GRPO's loss.
    """

    kinds: Sequence[Sequence[Anchor]]
    each_step: int
    weight: float

    def of(self, batch: int, batches: int) -> list[Anchor]:
        """The anchors of one backward pass: those of a kind in turn, and then from the first again.

        :param batch: the number of the pass, from 0 on.
        :param batches: backward passes of an optimizer step.
        """
        kinds = [kind for kind in self.kinds if kind]
        if not kinds:
            return []
        step, place = divmod(batch, batches)
        first, last = (self.each_step * end // batches for end in (place, place + 1))
        places = range(step * self.each_step + first, step * self.each_step + last)
        turns = [(kinds[place % len(kinds)], place // len(kinds)) for place in places]
        return [kind[turn % len(kind)] for kind, turn in turns]

    def divergence(self, model: Model, read: Sequence[Anchor]) -> torch.Tensor:
        """Of each anchor, how far the model is now from the one that it was made by; (anchors,)."""
        return divergence(model, read)
