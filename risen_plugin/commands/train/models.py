"""Load the model and tokenizer of a run; refuse an unusable one in one line."""

from __future__ import annotations

import importlib.util
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from risen_plugin.commands.train.run_config import DType, Quantized, RunConfig
from risen_plugin.config import LoraSettings
from risen_plugin.embedded import EMBEDDED, base_model
from risen_plugin.errors import ConfigError, near_miss, near_path, one_line
from risen_plugin.kit.hub import may_be_on_hub

_ALIKE = 0.85  # from which on a name is a slip of another, by difflib's ratio


def check_name(name: str) -> str:
    """The absolute folder or hub id that ``name`` is loaded from.

    Absolute, so that an adapter can name its base model by it.

    :raises ConfigError: if ``name`` is neither, with the near miss, or is an adapter.
    """
    path = Path(name).expanduser()
    if name == EMBEDDED and not path.exists():
        path = base_model()
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            raise ConfigError(
                f"model {name} is an adapter; a run needs a whole model: merge it first, with "
                "PeftModel.merge_and_unload and save_pretrained"
            )
        if not (path / "config.json").is_file():
            inside = sorted(child.parent.name for child in path.glob("*/config.json"))
            hint = f"; did you mean '{path / inside[-1]}'?" if inside else ""
            raise ConfigError(f"model {name} is a folder without config.json{hint}")
        return str(path.resolve())
    if path.exists():
        raise ConfigError(f"model {name} is a file; give the folder of a model, or a hub id")
    if get_close_matches(name, [EMBEDDED], cutoff=_ALIKE):
        # Before a hub is asked, which takes long to say that it has none.
        raise ConfigError(f"there is no model {name}; did you mean '{EMBEDDED}'?")
    if not may_be_on_hub(name):
        raise ConfigError(f"there is no model folder {name}{near_path(path, folders=True)}")
    return name


def load_run(run: RunConfig) -> tuple[Any, Any]:
    """The model and tokenizer of a run; see :func:`load`."""
    return load(run.model, run.dtype, lora=run.lora, seed=run.seed, quantize=run.quantize)


def load(
    name: str,
    dtype: DType,
    *,
    lora: LoraSettings | None,
    seed: int,
    quantize: Quantized | None = None,
) -> tuple[Any, Any]:
    """The model and tokenizer called ``name``; with ``lora``, a PeftModel with a fresh adapter.

    :param quantize: hold the weights in so few bits, which takes ``lora``.
    :raises ConfigError: if one of them cannot be loaded, or the adapter fits no module.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = check_name(name)
    wanted = _dtype(dtype, only_adapter=lora is not None)
    quantized = {} if quantize is None else _quantization(quantize, wanted)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=wanted, output_loading_info=True, **quantized
        )
    except Exception as error:  # configs, weight files and tokenizers each have their own types
        raise _not_loaded(name, source, error) from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConfigError(
            f"model {name} lacks weights: {missing[0]} and {len(missing) - 1} more of the tensors "
            "that its config.json asks for"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if quantized:
        from peft import prepare_model_for_kbit_training

        # Checkpointing is the Trainer's to set.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if lora is not None:
        torch.manual_seed(seed)
        model = with_adapter(model, lora)
    return model, tokenizer


def config_of(name: str) -> Any:
    """The configuration of the language model called ``name``, without its weights.

    :raises ConfigError: as :func:`load`.
    """
    from transformers import AutoConfig

    source = check_name(name)
    try:
        return AutoConfig.from_pretrained(source).get_text_config()
    except Exception as error:  # as where the model is loaded
        raise _not_loaded(name, source, error) from error


def _quantization(bits: Quantized, dtype: Any) -> dict[str, Any]:
    """What ``from_pretrained`` is told: QLoRA's NF4 with quantized scales, or LLM.int8.

    :raises ConfigError: without bitsandbytes.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"quantize: {bits} needs the package bitsandbytes, which is not installed; install it "
            "(pip install bitsandbytes), or leave quantize out"
        )
    settings: Any = BitsAndBytesConfig(load_in_8bit=True)
    if bits == "4bit":
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else dtype,
        )
    own = int(os.environ.get("LOCAL_RANK", "0"))  # the device of this process
    return {
        "quantization_config": settings,
        "device_map": {"": own if torch.cuda.is_available() else "cpu"},
    }


def with_adapter(model: Any, lora: LoraSettings) -> Any:
    """``model`` with a fresh adapter, which alone is trained.

    :raises ConfigError: if it fits no module.
    """
    from peft import get_peft_model

    from risen_plugin.run.fitness import check_targets
    from risen_plugin.training.adapters import fresh_lora

    check_targets(model, lora.target_modules)
    return get_peft_model(model, fresh_lora(model, lora))


def _dtype(wanted: DType, *, only_adapter: bool) -> Any:
    import torch

    if wanted != "auto":
        return getattr(torch, wanted)
    return "auto" if only_adapter and torch.cuda.is_available() else torch.float32


def weight_bytes(name: str, wanted: DType, *, only_adapter: bool) -> int:
    """Bytes of one weight as :func:`load` loads it."""
    import torch
    from transformers import AutoConfig

    dtype: Any = _dtype(wanted, only_adapter=only_adapter)
    if dtype == "auto":
        dtype = AutoConfig.from_pretrained(check_name(name)).dtype or torch.float32
    return int(dtype.itemsize)


def _not_loaded(name: str, source: str, error: Exception) -> ConfigError:
    if Path(source).is_dir():
        return ConfigError(f"model {name} cannot be loaded: {one_line(error)}")
    first, _, _ = one_line(error).partition(". ")  # what follows is advice to who writes programs
    return ConfigError(f"model {name} cannot be loaded{_beside(source)}: {first}")


def _beside(name: str) -> str:
    """A hint at the folder, or the embedded model, that a hub id may have been meant as."""
    path = Path(name)
    hint = near_path(path, folders=True) if path.parent.is_dir() else ""
    return (hint or near_miss(name, [EMBEDDED])).rstrip("?")
