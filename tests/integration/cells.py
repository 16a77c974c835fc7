"""One cell of the clean room's matrix: a phase in the run of one kind of model, by bits.

A cell is a kind of adapter, the type that the weights are held in, and the phase's outcome. Its
faults are all that the phase left behind without leave: what differs after a phase that was dropped
or failed, and what differs beside the trained weights after one that was kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from datasets import Dataset
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
)

from risen_plugin import Decision, Progress, RisenCallback
from risen_plugin.config import GuardConfig, RisenConfig, Weighted
from risen_plugin.embedded import base_model, orders
from risen_plugin.errors import RisenError, one_line
from risen_plugin.run.active import ActiveRun
from risen_plugin.training.losses import encode_probe, probe_loss

_ATTENTION = ["q_proj", "v_proj"]
_ROWS = orders.draw(24, 0)
_PROBE = [{"prompt": row["prompt"], "completion": row["completion"]} for row in _ROWS[:6]]
_STEPS = 2

OUTCOMES = ("kept", "dropped", "failed")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EIGHT_BIT, FOUR_BIT = "8-bit", "4-bit"
QUANTIZED: Mapping[str, Mapping[str, Any]] = {
    EIGHT_BIT: {"load_in_8bit": True},
    FOUR_BIT: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}
"""What bitsandbytes is asked for, by the name of the weights."""


def _lora(**changes: Any) -> Callable[[Any], Any]:
    return lambda model: get_peft_model(
        model,
        LoraConfig(**{"r": 4, "target_modules": _ATTENTION, "task_type": "CAUSAL_LM"} | changes),
    )


def _several(model: Any) -> Any:
    """An adapter that is trained, between two others that have TRL's name and other modules."""
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules=["v_proj"], task_type="CAUSAL_LM"), "default"
    )
    adapted.add_adapter("mine", LoraConfig(r=2, target_modules=["o_proj", "q_proj"]))
    adapted.add_adapter("last", LoraConfig(r=2, target_modules=_ATTENTION))
    adapted.set_adapter("mine")
    return adapted


def _own(model: Any) -> Any:
    """transformers' own support of adapters."""
    model.add_adapter(LoraConfig(r=4, target_modules=_ATTENTION))
    return model


KINDS: Mapping[str, Callable[[Any], Any]] = {
    "full": lambda model: model,
    "LoRA": _lora(),
    "DoRA": _lora(use_dora=True),
    "rsLoRA": _lora(use_rslora=True),
    "PiSSA": _lora(init_lora_weights="pissa"),
    "OLoRA": _lora(init_lora_weights="olora"),
    "IA3": lambda model: get_peft_model(
        model,
        IA3Config(
            target_modules=["k_proj", "down_proj"],
            feedforward_modules=["down_proj"],
            task_type="CAUSAL_LM",
        ),
    ),
    "several adapters": _several,
    "modules_to_save": _lora(modules_to_save=["norm"]),
    "on embeddings": _lora(target_modules=["embed_tokens", "q_proj"]),
    "add_adapter": _own,
}
"""What makes a model of each kind of a plain one."""


@dataclass(frozen=True)
class Cell:
    """A kind, the type of the weights, and the outcome of the phase."""

    kind: str
    dtype: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.dtype}-{self.outcome}"


def model_of(kind: str, dtype: str, folder: Path, *, seed: int = 0) -> Any:
    """A two-layer Qwen2 of a kind."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base_model())
    model: Any = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=1024,
            # bitsandbytes has one scale for each 64 weights
            hidden_size=64 if dtype in QUANTIZED else 32,
            intermediate_size=128 if dtype in QUANTIZED else 64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,
            tie_word_embeddings=kind != "on embeddings",
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    if dtype in QUANTIZED:
        from peft import prepare_model_for_kbit_training
        from transformers import BitsAndBytesConfig

        model.save_pretrained(folder / "whole")
        model = AutoModelForCausalLM.from_pretrained(
            folder / "whole",
            quantization_config=BitsAndBytesConfig(**QUANTIZED[dtype]),
            device_map={"": "cpu"},
        )
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    else:
        model = model.to(DTYPES[dtype])
    torch.manual_seed(seed)
    return KINDS[kind](model)


class NotOffered(Exception):
    """PEFT, bitsandbytes or the Trainer refuses such a model, before RISEN sees it."""


def faults(cell: Cell, folder: Path, *, beta: float = 0.1) -> list[str]:
    """What the phase of a cell left behind without leave, in words.

    :raises RisenError: where the run is refused at its start.
    :raises NotOffered: where there is no such model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _faults(cell, folder, beta)


def _faults(cell: Cell, folder: Path, beta: float) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(base_model())
    try:
        model = model_of(cell.kind, cell.dtype, folder)
        trainer = _trainer(model, tokenizer, folder)
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        raise NotOffered(one_line(error)) from error
    rises, calls = cell.outcome != "dropped", [0]

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        calls[0] += 1
        if cell.outcome == "failed" and calls[0] > 2 and model.training:
            raise ZeroDivisionError("oh")
        return [float(len(completion[0]["content"]) % 7) for completion in completions]

    callback = RisenCallback(
        RisenConfig(
            rewards=[Weighted(reward, passes_at=0.0)],
            generator=_Orders(),
            scheduler=_at_first_step,
            probe=_PROBE,
            guard=GuardConfig(
                rows=4,
                report_rows=0,
                kl_samples=2,
                min_gain=-1.0 if rises else 2.0,
                max_probe_loss_rise=1e9 if rises else 0.1,
                confidence=None,
            ),
            reserve=0,
            grpo={
                "num_generations": 4,
                "per_device_train_batch_size": 8,
                "max_completion_length": 6,
                "learning_rate": 2e-2,
                "logging_steps": 1,
                "beta": beta,
            },
        )
    ).attach(trainer)
    seen: list[Mapping[str, Any]] = []
    phase = ActiveRun.try_out

    def watched(*arguments: Any) -> None:
        seen.append(state_of(model, tokenizer))
        try:
            phase(*arguments)
        finally:
            seen.append(state_of(model, tokenizer))

    with mock.patch.object(ActiveRun, "try_out", watched):
        try:
            trainer.train()
        except RisenError:
            if cell.outcome != "failed" or not seen:
                raise
    before, after = seen
    found = [*_left(before, after, may_train=cell.outcome == "kept")]
    if cell.outcome == "failed":
        found += _next_step(trainer)
        return found
    record = callback.phases[1]
    if record.accepted is not (cell.outcome == "kept"):
        found.append(f"the phase was not {cell.outcome}: {record.metrics['verdict']}")
    if cell.outcome == "kept":
        found += _not_as_measured(record.metrics["guard/probe_loss_after"], after["probe_loss"])
        if not any(key.startswith("weights of ") and after[key] != before[key] for key in after):
            found.append("nothing was learned")
    [logs] = [
        json.loads(p.read_text())["logs"] for p in folder.glob("run/risen/phase-*/phase.json")
    ]
    first = next((entry["kl"] for entry in logs if "kl" in entry), 0.0)
    if beta and first != 0.0:
        found.append(f"the KL at the first step is {first:g}")
    return found


def _next_step(trainer: Any) -> list[str]:
    """Whether fine-tuning could go on."""
    batch = next(iter(trainer.get_train_dataloader()))
    try:
        loss = trainer.model(**batch).loss
        loss.backward()
    except RuntimeError as error:
        return [f"the next step raises: {error}"]
    return [] if torch.isfinite(loss) else ["the next step has no finite loss"]


def _not_as_measured(measured: float, kept: float) -> list[str]:
    if abs(measured - kept) <= 1e-6 * max(1.0, abs(kept)):
        return []
    return [f"the probe loss was measured as {measured:.6f} and is {kept:.6f}"]


def _left(before: Mapping[str, Any], after: Mapping[str, Any], *, may_train: bool) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        if may_train and (name.startswith("weights of ") or name == "probe_loss"):
            continue
        yield f"{name} differs"


@torch.no_grad()
def state_of(model: Any, tokenizer: Any) -> dict[str, Any]:
    """All that a phase could leave behind, by name, in comparable form; of tensors their bits."""
    modules = list(model.named_modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    state: dict[str, Any] = {"randomness": _randomness()}
    trained = _trained(model)
    for name, tensor in model.named_parameters(remove_duplicate=False):
        values = "weights of " if name in trained else "frozen weights of "
        state[f"{values}{name}"] = _bits(tensor)
        state[f"dtype of {name}"] = (str(tensor.dtype), tuple(tensor.shape), str(tensor.device))
        state[f"object of {name}"] = id(tensor)
        state[f"requires_grad of {name}"] = tensor.requires_grad
        state[f"gradient of {name}"] = None if tensor.grad is None else _bits(tensor.grad)
    for name, tensor in model.named_buffers(remove_duplicate=False):
        state[f"buffer {name}"] = (_bits(tensor), str(tensor.dtype))
    for name, module in modules:
        state[f"module {name}"] = (type(module).__name__, id(module), sorted(vars(module)))
        state[f"mode of {name}"] = module.training
        state[f"hooks of {name}"] = [len(getattr(module, hook)) for hook in hooks]
        plain = {
            k: v for k, v in vars(module).items() if isinstance(v, (str, int, float, list, set))
        }
        state[f"attributes of {name}"] = repr(sorted(plain.items(), key=lambda pair: pair[0]))
    for name, config in getattr(model, "peft_config", {}).items():
        state[f"configuration of adapter {name}"] = repr(sorted(config.to_dict().items(), key=str))
    state |= {
        "active adapters": repr(getattr(model, "active_adapter", None)),
        "config": model.config.to_dict(),
        "generation config": model.generation_config.to_dict(),
        "tokenizer": (tokenizer.padding_side, tokenizer.pad_token, tokenizer.truncation_side),
        "padding": (tokenizer.backend_tokenizer.padding, tokenizer.backend_tokenizer.truncation),
        "accelerate": repr(AcceleratorState._shared_state),
        "partial state": repr(PartialState._shared_state),
        "gradient state": repr(sorted(GradientState._shared_state)),
        "environment": dict(os.environ),
        "attention": torch.backends.cuda.cudnn_sdp_enabled(),
        "gradients enabled": torch.is_grad_enabled(),
    }
    with _left_alone(model):
        rows = encode_probe(tokenizer, _PROBE, 480)
        state["probe_loss"] = probe_loss(model, rows, batch_size=16)
    return state


def _trained(model: Any) -> set[str]:
    """The names of what a phase may write: a plain model's linear layers, the adapter's own."""
    if isinstance(model, PeftModel) or getattr(model, "_hf_peft_config_loaded", False):
        return {name for name, p in model.named_parameters() if p.requires_grad}
    return {name for name, _ in model.named_parameters(remove_duplicate=False) if "proj" in name}


@contextmanager
def _left_alone(model: Any) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    yield
    for module, training in modes:
        module.training = training


def _bits(tensor: torch.Tensor) -> str:
    held = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(held.numpy().tobytes()).hexdigest()


def _randomness() -> list[Any]:
    numpy_state: Any = np.random.get_state()
    return [random.getstate(), numpy_state[1].tolist(), torch.get_rng_state().tolist()]


class _Orders:
    def __call__(self, *, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        return orders.draw(count, seed)


def _at_first_step(progress: Progress) -> Decision:
    if progress.step == 1:
        return Decision("risen", _STEPS, {}, "it is time")
    return Decision("fine_tune", reason="not yet")


def _trainer(model: Any, tokenizer: Any, folder: Path) -> Trainer:
    ids = tokenizer("order: 51234, city: Kofu, item: blue lamp")["input_ids"]
    data = Dataset.from_list([{"input_ids": ids, "labels": ids}] * 8)
    trainer = Trainer(
        model,
        TrainingArguments(
            str(folder / "run"),
            max_steps=2,
            learning_rate=1e-3,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            per_device_train_batch_size=4,
            dataloader_pin_memory=False,
        ),
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
