"""Compare a bundle with the model it was made from, by logits and by greedy tokens.

End-of-text is ignored on both sides, so that every prompt is compared over the full length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

from risen_export.merging.tokenizers import encode_prompt, encode_prompts
from risen_export.merging.weights import context_length
from risen_export.runtime.bundle import Bundle
from risen_plugin.contracts import Prompt
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

# Largest logit difference of an fp32 graph that is still the same model.
FP32_TOLERANCE = 1e-3
PROMPTS = (
    "Name a colour.",
    "Answer in capital letters: what is two plus two?",
    "List three animals, separated by commas.",
    'Reply as JSON with the key "city".',
    "Write one sentence about the sea.",
    "Who ordered 12 red lamps on Monday?",
    "Repeat: the quick brown fox",
    "In at most five words, say good morning.",
)


class Verdict(TypedDict):
    """The differences between a bundle and its model.

    ``max_logit_diff``: largest absolute difference over all positions of all prompts, the model's
    own greedy answers fed to both. ``argmax_agreement``: share of those answer positions with the
    same likeliest token. ``greedy_agreement``: share of ``tokens_compared`` that are equal when
    each side answers alone; ``greedy_equal`` the same per prompt.
    """

    max_logit_diff: float
    argmax_agreement: float
    greedy_agreement: float
    greedy_equal: list[int]
    tokens_per_prompt: int
    tokens_compared: int
    prompts: int


@dataclass(frozen=True)
class Reference:
    """The model's own answers to the prompts; one reference serves every precision.

    :param rows: prompt ids.
    :param answers: its greedy tokens after each prompt, all of the same length.
    :param logits: (T, V) of prompt and answer together, per prompt.
    """

    rows: list[list[int]]
    answers: list[list[int]]
    logits: list[npt.NDArray[np.float32]]


def reference(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt] | None = None,
    tokens: int = 64,
) -> Reference:
    """Run ``model``, which must be fp32 on the CPU, one prompt after the other.

    :param prompts: texts or chat messages; if None eight short questions, as chats where the
        tokenizer's template takes them.
    :param tokens: greedy tokens per prompt, fewer where the context is shorter.
    :raises ExportError: if a prompt leaves no room for an answer.
    """
    if prompts:
        rows = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    else:
        rows, _ = encode_prompts(tokenizer, PROMPTS)
    context = context_length(model.config)
    room = tokens if context is None else context - max(map(len, rows))
    length = min(tokens, room)
    if length < 1:
        raise ExportError(
            f"no room to verify: a prompt has {max(map(len, rows))} tokens, the context {context}; "
            "give shorter verify_prompts, or leave the check out with --no-verify"
        )
    answers = [_greedy(model, row, length) for row in rows]
    logits = [_logits(model, row + answer) for row, answer in zip(rows, answers, strict=True)]
    return Reference(rows, answers, logits)


def verify(
    bundle_dir: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt] | None = None,
    tokens: int = 64,
) -> Verdict:
    """Compare the bundle in ``bundle_dir`` with ``model``; the parameters as :func:`reference`."""
    return compare(Bundle.open(bundle_dir), reference(model, tokenizer, prompts, tokens))


def compare(bundle: Bundle, expected: Reference) -> Verdict:
    """Compare a bundle, which answers all prompts as one right-padded batch, with a reference."""
    length = len(expected.answers[0])
    answers = bundle.generate_ids(
        expected.rows, max_new_tokens=length, ignore_eos=True, follow_settings=False
    )
    equal = [
        sum(ours == theirs for ours, theirs in zip(*pair, strict=True))
        for pair in zip(answers, expected.answers, strict=True)
    ]
    differences, same = [], 0
    for row, answer, theirs in zip(expected.rows, expected.answers, expected.logits, strict=True):
        ours = bundle.logits(np.array([row + answer], dtype=np.int64))[0]
        differences.append(np.abs(ours - theirs).max())
        answered = slice(len(row) - 1, -1)
        same += int((ours[answered].argmax(-1) == theirs[answered].argmax(-1)).sum())
    compared = length * len(expected.rows)
    return Verdict(
        max_logit_diff=float(np.max(differences)),  # NaN stays NaN
        argmax_agreement=same / compared,
        greedy_agreement=sum(equal) / compared,
        greedy_equal=equal,
        tokens_per_prompt=length,
        tokens_compared=compared,
        prompts=len(expected.rows),
    )


def _greedy(model: PreTrainedModel, row: list[int], tokens: int) -> list[int]:
    """The model's own greedy tokens, going on past end-of-text."""
    import torch

    answer: list[int] = []
    past: Cache | None = None
    ids = torch.tensor([row])
    with torch.no_grad():
        for _ in range(tokens):
            output = model(input_ids=ids, past_key_values=past, use_cache=True)
            past = output.past_key_values
            answer.append(int(output.logits[0, -1].argmax()))
            ids = torch.tensor([[answer[-1]]])
    return answer


def _logits(model: PreTrainedModel, ids: list[int]) -> npt.NDArray[np.float32]:
    """Logits (T, V) of one sequence."""
    import torch

    with torch.no_grad():
        logits: npt.NDArray[np.float32] = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    return logits
