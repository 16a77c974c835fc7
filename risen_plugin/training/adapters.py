"""Keep what a phase's adapter has learned: save it, and fold it into the model's own parameters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel

from risen_plugin.config import LoraSettings


def fresh_lora(settings: LoraSettings) -> LoraConfig:
    """The temporary adapter of a phase on a plain model."""
    targets = settings.target_modules
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def save_adapter(model: Any, trained: Any, folder: Path, called: str = "adapter") -> None:
    """Save the adapter of ``trained`` under a name in ``folder``, whole or not at all.

    :param model: the model as the phase found it.
    """
    own = isinstance(model, PeftModel)
    if not own:
        # It stands on the weights at phase entry, not on the model that the run began with.
        entry = str(entry_folder(folder).absolute())
        trained.peft_config["default"].base_model_name_or_path = entry
    name = str(model.active_adapter) if own else "default"
    temporary = folder.with_name(f".{folder.name}.adapter")
    try:
        trained.save_pretrained(
            str(temporary), selected_adapters=[name], save_embedding_layers=False
        )
        saved = temporary / name if (temporary / name).is_dir() else temporary
        folder.mkdir(parents=True, exist_ok=True)
        saved.replace(folder / called)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def merge(trained: Any) -> None:
    """Write the adapter into the same Parameter objects; refuses an adapter that holds NaN."""
    trained.merge_adapter(safe_merge=True)


def entry_folder(folder: Path) -> Path:
    """Where the weights at phase entry lie, if they are kept."""
    return folder / "entry"
