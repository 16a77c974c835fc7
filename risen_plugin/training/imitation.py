"""Learning from edited answers before GRPO: the loss of what was edited, beside the anchors.

GRPO learns from differences between answers that the model samples. What it never does by itself,
such as writing without capital letters, no sample shows. A few steps on answers that do it give
GRPO something to reinforce; in the literature this is a cold start (DeepSeek-R1, arXiv:2501.12948).
Only the edits are to be learned. The other tokens are the model's own, and as many more that their
loss would drown that of the edits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import cast

import torch
from tqdm.auto import tqdm

from risen_plugin.training.anchoring import Anchors
from risen_plugin.training.asking import in_precision
from risen_plugin.training.phase_trainer import PhaseTrainer, trained_parameters
from risen_plugin.training.protocols import Model
from risen_plugin.training.reading import logits_from

_WARM_UP = 3  # steps
_AT_ONCE = 8  # answers of a forward and backward pass
_NORM = 1.0  # that gradients are cut to, as transformers' Trainer does


@dataclass(frozen=True)
class Example:
    """A prompt and its answer.

    :param ids: their token ids.
    :param weights: of each token in the loss; their sum is 1.
    """

    ids: list[int]
    weights: list[float]


def example(prompt: list[int], draft: list[int], answer: list[int], unedited: float) -> Example:
    """An answer that was made of a draft, to be learned where they differ.

    A token counts if it is not the draft's, or if it follows one that was put in, or the place
    where one was left out. So do the first and the last: most edits begin or end an answer, and
    those that do neither show that an answer begins and ends otherwise where nobody asked for it.

    :param unedited: the weight of a token that is the draft's, where one that counts has 1.

    >>> example([1], [5, 6, 7], [4, 5, 7, 2], 0.0).weights
    [0.0, 0.25, 0.25, 0.25, 0.25]
    >>> example([1], [5, 6, 7, 2], [5, 6, 7, 2], 0.0).weights
    [0.0, 0.5, 0.0, 0.0, 0.5]
    """
    weights = [unedited] * len(answer)
    for change, _, _, start, end in SequenceMatcher(None, draft, answer, False).get_opcodes():
        if change != "equal":
            upto = end if change == "replace" else end + 1
            weights[start:upto] = [1.0] * len(weights[start:upto])
    weights[0] = weights[-1] = 1.0
    whole = sum(weights) or 1.0
    return Example([*prompt, *answer], [0.0] * len(prompt) + [one / whole for one in weights])


@dataclass(frozen=True)
class Imitation:
    """Answers to learn from, in this process.

    :param rows: each with the weights of its tokens.
    :param batch_size: answers of a step in this process.
    :param steps: the same in all processes; there are at least ``steps * batch_size`` rows, or one.
    :param learning_rate: the highest.
    :param weight: of the loss beside the anchors' divergence.
    """

    rows: Sequence[Example]
    batch_size: int
    steps: int
    learning_rate: float
    seed: int
    weight: float = 1.0

    def batches(self) -> Iterator[list[Example]]:
        """The rows of each step, those of about the same length together, which saves padding.

        The steps come in an order of the seed's. Where there are fewer rows than the steps have
        room for, the last has fewer; a step without any has one of the first.
        """
        rng = random.Random(self.seed)
        rows = sorted(rng.sample(self.rows, len(self.rows)), key=lambda row: len(row.ids))
        starts = [step * self.batch_size for step in range(self.steps)]
        batches = [rows[start : start + self.batch_size] or rows[:1] for start in starts]
        yield from rng.sample(batches, len(batches))

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0: it rises for three steps and falls to 0."""
        return self.learning_rate * min(1.0, (step + 1) / _WARM_UP) * (1.0 - step / self.steps)


def imitate(
    trainer: PhaseTrainer,
    imitation: Imitation,
    anchors: Anchors | None,
    *,
    precision: torch.dtype | None,
    label: str,
    quiet: bool,
) -> list[float]:
    """Fine-tune the trainer's adapter, before its own training; the loss of each step.

    The gradients of several processes are averaged. The trainer's own optimizer has not begun.

    :param anchors: that the model is held to meanwhile, as in GRPO's steps.
    :param precision: that the model computes in; None for the weights' own.
    :param label: of the progress bar.
    """
    model = trainer.trained
    parameters = list(trained_parameters(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=imitation.learning_rate, weight_decay=0.0)
    losses: list[float] = []
    model.train()
    bar = tqdm(total=imitation.steps, desc=label, unit="step", leave=False, disable=quiet)
    with bar:
        for step, rows in enumerate(imitation.batches()):
            for group in optimizer.param_groups:
                group["lr"] = imitation.rate(step)
            loss = _backward(model, rows, imitation.weight, precision)
            if anchors is not None and (read := anchors.of(step, 1)):
                with in_precision(model, precision):
                    found = anchors.divergence(model, read)
                (anchors.weight * found.sum() / anchors.each_step).backward()
            _average(trainer, parameters)
            torch.nn.utils.clip_grad_norm_(parameters, _NORM)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss)
            bar.set_postfix(loss=f"{loss:.2f}")
            bar.update()
    return losses


def _backward(
    model: Model, rows: Sequence[Example], weight: float, precision: torch.dtype | None
) -> float:
    """The weighted gradient of the mean loss of the rows; the loss itself.

    Autocast ends with each forward pass: until then it keeps what it has rounded, and would compute
    with the weights as they were before the optimizer's first step.
    """
    whole = 0.0
    for start in range(0, len(rows), _AT_ONCE):
        with in_precision(model, precision):
            loss = _summed_loss(model, rows[start : start + _AT_ONCE]) / len(rows)
        (weight * loss).backward()
        whole += float(loss.detach())
    return whole


def _summed_loss(model: Model, rows: Sequence[Example]) -> torch.Tensor:
    """The sum of the rows' mean negative log-likelihoods, in nats per token that counts."""
    device = next(model.parameters()).device
    longest = max(len(row.ids) for row in rows)
    first = max(1, min(next(at for at, weight in enumerate(r.weights) if weight) for r in rows))
    logits = logits_from(model, [row.ids for row in rows], first - 1)[:, :-1]  # (B, T, V)
    padding = [longest - len(row.ids) for row in rows]
    ids = [row.ids[first:] + [0] * more for row, more in zip(rows, padding, strict=True)]
    weights = [row.weights[first:] + [0.0] * more for row, more in zip(rows, padding, strict=True)]
    wanted, counts = torch.tensor(ids, device=device), torch.tensor(weights, device=device)
    learned = counts > 0.0
    losses = torch.nn.functional.cross_entropy(
        logits[learned].float(), wanted[learned], reduction="none"
    )
    return (losses * counts[learned]).sum()


def _average(trainer: PhaseTrainer, parameters: Sequence[torch.nn.Parameter]) -> None:
    """The mean gradient of all processes, in each of them."""
    if trainer.accelerator.num_processes == 1:
        return
    for parameter in parameters:
        own = parameter.grad
        if own is None:  # the others have one, and wait
            own = torch.zeros_like(parameter)
        parameter.grad = cast(torch.Tensor, trainer.accelerator.reduce(own, reduction="mean"))
