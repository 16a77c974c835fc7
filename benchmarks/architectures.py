"""Try one RISEN phase on a tiny model of every causal architecture that transformers has.

``python -m benchmarks.architectures`` builds each from its own configuration, made small, with
random weights and a byte tokenizer, fine-tunes it for one step and reinforces it for two. The table
of docs/reference/compatibility.md is what it prints. No architecture may fail after its fine-tuning
has begun: what no phase can be trained on is refused before, in one line.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from datasets import Dataset
from tokenizers.pre_tokenizers import ByteLevel
from tqdm.auto import tqdm
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.shared import machine, print_table, write_results
from risen_plugin import RisenCallback, use
from risen_plugin.config import GuardConfig, Weighted
from risen_plugin.errors import RisenError, one_line, typed_line

SMALL: Mapping[str, Any] = {
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "dim": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "intermediate_size_mlp": 64,
    "ffn_hidden_size": 64,
    "ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "n_inner": 64,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layers": 2,
    "n_layer": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_d_ssm": 64,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 8,
    "state_size": 8,
    "time_step_rank": 4,
    "max_position_embeddings": 512,
    "n_positions": 512,
    "max_sequence_length": 512,
    "sliding_window": 256,
    "rotary_dim": 8,
    "vocab_size_per_layer_input": 288,
    "hidden_size_per_layer_input": 8,
}
"""Sizes that make a configuration small, by the names that configurations have for them."""


AS_MANY_KEYS = (
    *("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32"),
    *("glm4_moe_lite", "glm_moe_dsa", "minicpm3", "youtu"),
)
"""Architectures whose attention has as many heads of keys as of queries."""

FOURTH_ATTENDS = ("lfm3", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
"""Architectures whose first layer of attention is the fourth."""

OF_ONE: Mapping[str, Mapping[str, Any]] = {
    **{name: {"num_key_value_heads": 4} for name in AS_MANY_KEYS},
    **{name: {"num_hidden_layers": 4} for name in FOURTH_ATTENDS},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "bamba": {"attn_layer_indices": [1]},
    "cwm": {"bos_token_id": 257},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hunyuan_v1_dense": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "hunyuan_v1_moe": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "ministral": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "modernbert-decoder": {"bos_token_id": 257},
    "zamba": {"num_hidden_layers": 3, "layer_types": ["mamba", "hybrid", "mamba"]},
    "zamba2": {"num_hidden_layers": 2, "layer_types": ["mamba", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}
"""Fields that one configuration needs beside, or has other sizes for."""

MOST_PARAMETERS = 4_000_000
VOCABULARY = 288
GRPO = {
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 8,
    "learning_rate": 1e-2,
}
KEEP = GuardConfig(
    rows=4, report_rows=0, min_gain=-1.0, max_probe_loss_rise=1e9, kl_samples=0, confidence=None
)


def byte_tokenizer() -> Any:
    """A byte tokenizer in Qwen2's layout; its ids are below :data:`VOCABULARY`."""
    return transformers.Qwen2Tokenizer(
        vocab={byte: index for index, byte in enumerate(sorted(ByteLevel.alphabet()))},
        merges=[],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        model_max_length=256,
    )


def tiny(name: str, tokenizer: Any) -> Any:
    """A model of an architecture with two layers and random weights.

    :raises ValueError: if its configuration does not make it small.
    """
    kind = CONFIG_MAPPING[name]
    own = vars(kind())
    sizes = {field: size for field, size in SMALL.items() if own.get(field) is not None}
    config = kind(
        **{
            "vocab_size": VOCABULARY,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            **sizes,
            **OF_ONE.get(name, {}),
        }
    )
    if hasattr(config, "is_decoder"):
        config.is_decoder = True
    build = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])
    with torch.device("meta"):
        size = build(config).num_parameters()
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size:,} parameters although its sizes were made small")
    torch.manual_seed(0)
    return build(config)


def letters(completions: list[str], **columns: Any) -> list[float]:
    """The share of plain letters."""
    return [
        sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text)) for text in completions
    ]


def instructions(*, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
    """Prompts of different lengths."""
    return [{"prompt": f"Say {'more ' * (n % 3)}of {seed + n}:"} for n in range(count)]


def run_alone(model: Any) -> None:
    """Have a model answer two prompts of different lengths, and take its gradient once."""
    ids = torch.tensor([[256, 2, 3], [4, 5, 6]])  # (2, 3), padded on the left
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=2, do_sample=False)
    model(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()
    model.zero_grad()


def run(model: Any, tokenizer: Any, folder: str) -> dict[str, Any]:
    """One step of fine-tuning, then a phase of two."""
    ids = tokenizer("A short text to learn.")["input_ids"]
    rows = Dataset.from_list([{"input_ids": ids, "labels": ids}] * 2)
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            folder,
            max_steps=1,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )
    callback = RisenCallback(
        rewards=[Weighted(letters, passes_at=0.0)],
        generator=instructions,
        scheduler=use("after", steps=2),
        reserve=0,
        grpo=GRPO,
        guard=KEEP,
    ).attach(trainer)
    trainer.train()
    [phase] = [phase for phase in callback.phases if phase.kind == "risen"]
    finite = all(bool(p.isfinite().all()) for p in model.parameters())
    if phase.steps != 2 or not phase.accepted or not finite:
        return {"outcome": "failed", "line": f"{phase.steps} steps, weights finite: {finite}"}
    return {"outcome": "trained", "line": ""}


def outcome(name: str, tokenizer: Any) -> dict[str, Any]:
    """What became of one architecture."""
    started = time.perf_counter()
    found: dict[str, Any] = {"name": name, "class": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]}
    try:
        model = tiny(name, tokenizer)
    except Exception as error:  # noqa: BLE001 configurations refuse sizes in their own ways
        return {**found, "outcome": "not built", "line": typed_line(error)[:200]}
    try:
        run_alone(model)
    except Exception as error:  # noqa: BLE001 that it runs at all is not for RISEN to show
        return {**found, "outcome": "not built", "line": f"runs not by itself: {typed_line(error)}"}
    found["parameters"] = model.num_parameters()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        try:
            found |= run(model, tokenizer, folder)
        except Exception as error:  # noqa: BLE001 that anything may be raised is looked for
            now = model.state_dict()
            is_same = now.keys() == before.keys() and all(
                torch.equal(value, now[key]) for key, value in before.items()
            )
            is_refused = isinstance(error, RisenError) and is_same
            found |= {
                "outcome": "refused" if is_refused else "failed",
                "line": one_line(error) if is_refused else typed_line(error),
                "traceback": "".join(traceback.format_exception(error)),
            }
    return {**found, "seconds": round(time.perf_counter() - started, 1)}


@click.command()
@click.argument("names", nargs=-1)
@click.option("--show", is_flag=True, help="Print the traceback of what fails or is refused.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write it here.")
def main(names: tuple[str, ...], show: bool, json_file: Path | None) -> None:
    """Try the architectures called NAMES, or all; exit with 1 if one fails without a refusal."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("risen_plugin").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    where = machine()
    tokenizer = byte_tokenizer()
    results = []
    for name in tqdm(names or list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), unit="architecture"):
        found = outcome(name, tokenizer)
        results.append(found)
        if found["outcome"] != "trained":
            tqdm.write(f"{found['outcome']}: {name}: {found['line']}", file=sys.stderr)
            if show:
                tqdm.write(found.get("traceback", ""), file=sys.stderr)
    for kind in ("trained", "refused", "failed", "not built"):
        of_kind = [found for found in results if found["outcome"] == kind]
        print_table(
            f"{kind}: {len(of_kind)}",
            ["architecture", "class", "line"],
            [[f["name"], f["class"], f["line"]] for f in of_kind],
        )
    write_results(json_file, settings={"grpo": GRPO}, machine=where, results={"all": results})
    raise SystemExit(any(found["outcome"] == "failed" for found in results))


if __name__ == "__main__":
    main()
