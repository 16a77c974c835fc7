"""Refuse, at the start and in one line, a Trainer that RISEN phases cannot work in."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

from peft import PeftMixedModel, PeftModel
from transformers import TrainingArguments

from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.training.adapters import REFERENCE, active_adapters, is_adapted_itself
from risen_plugin.training.outer_trainer import running_processes
from risen_plugin.training.protocols import AdaptedModel, Model
from risen_plugin.training.seam import check_seam

_SHARDED = (
    (
        "DeepSpeed",
        "deepspeed",
        "its engine owns the optimizer and the parameters, and a phase trains and merges an "
        "adapter of its own",
    ),
    (
        "FSDP",
        "fsdp",
        "a phase's adapter can neither be trained beside sharded parameters nor merged into them",
    ),
)


_BEFORE_THE_PROMPT = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT")
"""Kinds of adapters whose model returns logits for more tokens than it is given."""


def check_arguments(args: TrainingArguments) -> None:
    """Check the libraries that a run reaches into, and the outer Trainer's arguments.

    :raises ConfigError: for a release of a library without a name that is reached for, for several
        devices in one process, for processes that know nothing of one another, for DeepSpeed and
        FSDP, for ``load_best_model_at_end``, and for an ``output_dir`` that cannot be written.
    """
    check_seam()
    if args.n_gpu > 1:
        raise ConfigError(
            f"this process trains on {args.n_gpu} devices at once (DataParallel), which RISEN "
            f"phases cannot; start one process per device (torchrun --nproc_per_node "
            f"{args.n_gpu}), or use one (CUDA_VISIBLE_DEVICES=0)"
        )
    started = running_processes().count
    if started > 1 and args.world_size == 1:
        raise ConfigError(
            f"each of the {started} processes would train alone, since on CPUs a Trainer has to "
            "be asked to join them: give TrainingArguments use_cpu=True, or start one process"
        )
    for name, setting, why in _SHARDED:
        launched = os.environ.get(f"ACCELERATE_USE_{name.upper()}", "").lower() == "true"
        if getattr(args, setting, None) or launched:
            raise ConfigError(
                f"RISEN phases do not run under {name}: {why}; leave it off, and start one process "
                "per device with torchrun, which shares the work by DDP; or fine-tune without "
                f"RISEN under {name}, and start risen train without data on the model that it saved"
            )
    if args.load_best_model_at_end:
        raise ConfigError(
            "load_best_model_at_end could throw accepted RISEN phases away without a word; set it "
            "to False (the guard keeps a phase only if it pays)"
        )
    _check_writable(Path(str(args.output_dir)).absolute())


def limit_rewards(rewards: Sequence[NamedReward], longest_s: float, processes: int) -> None:
    """Give every reward a time limit where other processes wait for it.

    A process that waits longer than ``longest_s`` stops with an error of torch's, which knows
    nothing of rewards; so a reward's own limit must end before.

    :raises ConfigError: for a limit that does not.
    """
    if processes == 1:
        return
    for reward in rewards:
        limit_s = reward.grading.timeout_s
        if limit_s is None:
            reward.limit(longest_s / 2)
        elif limit_s >= longest_s:
            raise ConfigError(
                f"{reward.label} has timeout_s = {limit_s:g}, but the other processes "
                f"wait for {longest_s:g} seconds at the most; lower it, or raise ddp_timeout"
            )


def _check_writable(folder: Path) -> None:
    """Look without writing: the folder, or where it would be made, takes files."""
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not nearest.is_dir():
        reason = f"{nearest} is a file"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        reason = f"{nearest} takes no files"
    else:
        return
    raise ConfigError(
        f"the run's record cannot be written to output_dir {folder}: {reason}; choose another"
    )


def check_model(model: object, tokenizer: object) -> None:
    """Check that the model writes text and that there is a tokenizer to write it with.

    :raises ConfigError: naming the part that is missing.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    name = type(inner).__name__
    config = getattr(inner, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"{name} is an encoder-decoder model; RISEN needs a causal language model"
        )
    if not getattr(inner, "can_generate", lambda: False)():
        raise ConfigError(
            f"{name} cannot generate text; RISEN needs a causal language model "
            "(AutoModelForCausalLM)"
        )
    if tokenizer is None:
        raise ConfigError("the Trainer has no tokenizer; give it processing_class=tokenizer")
    if getattr(tokenizer, "eos_token_id", None) is None:
        raise ConfigError("the tokenizer has no eos_token, so no answer could ever end; set one")
    if isinstance(model, PeftModel) or is_adapted_itself(cast(Model, model)):
        _check_adapters(cast(AdaptedModel, model))


def _check_adapters(model: AdaptedModel) -> None:
    if isinstance(model, PeftMixedModel):
        raise ConfigError(
            "the model is a PeftMixedModel, which TRL does not know; give it adapters of one kind, "
            "by get_peft_model"
        )
    active = model.active_adapters if isinstance(model, PeftModel) else active_adapters(model)
    if len(active) != 1:
        raise ConfigError(
            f"the model has {len(active)} active adapters ({', '.join(active)}); RISEN trains one"
        )
    kind = str(getattr(model.peft_config[active[0]].peft_type, "value", ""))
    if kind in _BEFORE_THE_PROMPT:
        raise ConfigError(
            f"the adapter '{active[0]}' ({kind.replace('_', ' ').lower()}) puts tokens of its own "
            "before every prompt, so that neither TRL nor the guard finds an answer's place; train "
            "LoRA, or prefix tuning"
        )
    if REFERENCE in model.peft_config:
        raise ConfigError(
            "an adapter is called 'ref', which TRL needs for its reference; rename it"
        )


def check_probe(probe: object, *, has_evaluation: bool) -> None:
    """Check that there are rows whose loss shows what a phase forgets.

    :param has_evaluation: whether the Trainer's evaluation set has any.
    :raises ConfigError: with where to give some.
    """
    if probe is None and not has_evaluation:
        raise ConfigError(
            "there is nothing to measure retention on: give RisenConfig(probe=...) rows or a JSON "
            "Lines file, or attach the callback to a Trainer that has an eval_dataset"
        )


def check_targets(model: Any, targets: str | Sequence[str]) -> None:
    """Check that a phase's adapter finds a module of a plain model to sit on.

    :param targets: as PEFT reads them: the end of a module's name, or one regular expression.
    :raises ConfigError: naming the near miss, or a module that shares its weights with another one,
        whose answers merging would change too.
    """
    if isinstance(model, PeftModel) or is_adapted_itself(model) or targets == "all-linear":
        return
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(targets, str):
        try:
            found = [name for name in names if re.fullmatch(targets, name)]
        except re.error as error:
            raise ConfigError(
                f"lora.target_modules = {targets!r} is no regular expression: {error}"
            ) from error
        wanted = targets
    else:
        found = [
            name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)
        ]
        wanted = ", ".join(targets)
    if not found:
        ends = {name.rpartition(".")[2] for name in names}
        hint = near_miss(wanted, ends) or "; name some, such as q_proj, or take 'all-linear'"
        raise ConfigError(f"lora.target_modules: the model has no module '{wanted}'{hint}")
    _check_shared(model, set(found))


def _check_shared(model: Any, targeted: Collection[str]) -> None:
    """Check that what merging writes is a targeted module's own."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        shared = next((name for name in names if name in targeted), None)
        if shared is not None and len(names) > 1:
            other = next(name for name in names if name != shared)
            raise ConfigError(
                f"lora.target_modules: '{shared}' shares its weights with '{other}' (tied), so "
                "that merging a phase's adapter into one would change the other too; leave "
                f"'{shared}' out"
            )
