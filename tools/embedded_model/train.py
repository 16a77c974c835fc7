"""Train the embedded base model from nothing: ``python -m tools.embedded_model.train OUT``.

Writes an ordinary model folder (Qwen2 architecture, byte-level BPE, ChatML template) and
``provenance.json`` with the seed, the data, the shares of obeyed wishes, the losses and the time.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from risen_plugin.embedded import base_model
from tools.embedded_model import corpus

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Qwen2's own pre-tokenizer: the exporters and runtimes that know Qwen2 know it too.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_IGNORED = -100


def build_tokenizer(seed: int, vocabulary: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE learned from the corpus in three letter cases, in Qwen2's layout."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern=Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(seed, 20_000), trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],  # type: ignore[misc]  # as upstream
        unk_token=None,  # type: ignore[arg-type]  # bytes leave nothing unknown
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
        model_max_length=512,
    )
    tokenizer.chat_template = (base_model() / "chat_template.jinja").read_text()
    return tokenizer


def _texts(seed: int, count: int) -> Iterator[str]:
    for index, turns in enumerate(itertools.islice(corpus.conversations(seed), count)):
        text = "\n".join(f"{turn['role']}\n{turn['content']}" for turn in turns)
        yield (text, text, text.upper(), text.lower())[index % 4]


def encode(tokenizer: Any, turns: list[corpus.Turn]) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and its labels: only the assistant's words are learned."""
    ids: list[int] = []
    labels: list[int] = []
    for turn in turns:
        head = tokenizer.encode(f"<|im_start|>{turn['role']}\n", add_special_tokens=False)
        body = tokenizer.encode(f"{turn['content']}<|im_end|>", add_special_tokens=False)
        tail = tokenizer.encode("\n", add_special_tokens=False)
        learned = turn["role"] == "assistant"
        ids += head + body + tail
        labels += [_IGNORED] * len(head) + (body if learned else [_IGNORED] * len(body))
        labels += [_IGNORED] * len(tail)
    return ids, labels


def batches(
    tokenizer: Any, seed: int, size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Right-padded ids, attention mask and labels, each (B, T); rows of like length together."""
    stream = (encode(tokenizer, turns) for turns in corpus.conversations(seed))
    rng = random.Random(seed)
    while True:
        pool = sorted(itertools.islice(stream, size * 16), key=lambda row: len(row[0]))
        groups = [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(groups)
        for group in groups:
            longest = max(len(ids) for ids, _ in group)
            pad = tokenizer.pad_token_id
            yield (
                torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in group]),
                torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in group]),
                torch.tensor([lab + [_IGNORED] * (longest - len(lab)) for _, lab in group]),
            )


def build_model(tokenizer: Any, layers: int, hidden: int) -> Qwen2ForCausalLM:
    heads = hidden // 32
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 32) * 32,
        hidden_size=hidden,
        intermediate_size=hidden * 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )
    return Qwen2ForCausalLM(config)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 100 steps, then a cosine down to a hundredth of ``peak``."""
    if step < 100:
        return peak * (step + 1) / 100
    done = (step - 100) / max(1, steps - 100)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def train(
    model: Qwen2ForCausalLM,
    tokenizer: Any,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    peak: float,
    optimizer_name: str,
) -> list[tuple[int, float]]:
    """Train in place; returns (step, mean loss since the last entry) every 50 steps."""
    optimizers = _optimizers(model, optimizer_name)
    losses: list[tuple[int, float]] = []
    total = 0.0
    data = batches(tokenizer, seed + 1, batch_size)
    bar = tqdm(range(steps), desc="base model", unit="step", mininterval=10)
    model.train()
    for step in bar:
        ids, mask, labels = next(data)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, factor in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * learning_rate(step, steps, peak)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        total += loss.item()
        if (step + 1) % 50 == 0:
            losses.append((step + 1, round(total / 50, 4)))
            bar.set_postfix(loss=losses[-1][1])
            total = 0.0
    return losses


def _optimizers(model: Qwen2ForCausalLM, name: str) -> list[tuple[torch.optim.Optimizer, float]]:
    def adamw(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)

    if name == "adamw":
        return [(adamw(model.parameters()), 1.0)]
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    held = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in held]
    muon = torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [(muon, 1.0), (adamw(others), 1.0)]


def obedience(seed: int, count: int) -> dict[str, float]:
    """Shares of obeyed wishes in the corpus, per constraint id, by checking recorded answers."""
    stated: Counter[str] = Counter()
    met: Counter[str] = Counter()
    for wish, obeyed in itertools.islice(corpus.stated_wishes(seed), count):
        stated[wish] += 1
        met[wish] += obeyed
    return {wish: round(met[wish] / stated[wish], 4) for wish in sorted(stated)}


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True)
@click.option("--steps", default=2500, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--peak", default=3e-3, show_default=True, help="Peak learning rate.")
@click.option(
    "--optimizer", "optimizer_name", type=click.Choice(["adamw", "muon"]), default="adamw"
)
@click.option("--layers", default=4, show_default=True)
@click.option("--hidden", default=128, show_default=True)
@click.option("--vocabulary", default=1021, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--cycle", default=0, show_default=True, help="Chooses the text of this run.")
@click.option(
    "--start-from",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Go on from a base that this script wrote, with a fresh optimizer and other text.",
)
def main(
    out: Path,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    peak: float,
    optimizer_name: str,
    layers: int,
    hidden: int,
    vocabulary: int,
    threads: int,
    cycle: int,
    start_from: Path | None,
) -> None:
    """Train the embedded base model and write it to OUT."""
    started = time.monotonic()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    earlier = None
    if start_from is None:
        tokenizer = build_tokenizer(seed, vocabulary)
        model = build_model(tokenizer, layers, hidden)
    else:
        earlier = json.loads((start_from / "provenance.json").read_text())
        tokenizer = transformers.AutoTokenizer.from_pretrained(start_from)
        model = Qwen2ForCausalLM.from_pretrained(start_from, dtype=torch.float32)
    losses = train(
        model,
        tokenizer,
        seed=seed + cycle,
        steps=steps,
        batch_size=batch_size,
        peak=peak,
        optimizer_name=optimizer_name,
    )
    model.eval()
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=96
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "provenance.json").write_text(
        json.dumps(
            {
                "script": "tools/embedded_model/train.py",
                "data": "tools/embedded_model/corpus.py, generated; no text from elsewhere",
                "seed": seed,
                "cycle": cycle,
                "steps": steps,
                "batch_size": batch_size,
                "peak_learning_rate": peak,
                "optimizer": optimizer_name,
                "parameters": sum(p.numel() for p in model.parameters()),
                "obedience": obedience(seed + 1, 50_000),
                "losses": losses,
                "seconds": round(time.monotonic() - started, 1),
                "threads": threads,
                "started_from": earlier,
                "versions": {
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                },
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
