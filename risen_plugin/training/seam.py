"""The seam to other libraries: every name of theirs that they promise to nobody.

A run reaches into transformers, TRL, accelerate and PEFT where they have no public way. Each name
that is reached for is listed here with its use. Code in this room alone reaches for them.
:func:`check_seam` looks for them when a run begins, so that a release without one of them is
refused before anything is trained; ``tests/contract/test_seam.py`` holds the assumptions on each.
Where releases that are accepted differ, one function serves both.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from risen_plugin import __version__
from risen_plugin.errors import ConfigError

ReachKind = Literal["function", "method", "override", "class attribute", "attribute"]


SINCE = {
    "transformers": "5.3",
    "trl": "1.9",
    "accelerate": "1.10.1",
    "peft": "0.18",
    "onnxruntime_genai": "0.18",
}
"""The oldest release of each library that the names were looked for in."""


@dataclass(frozen=True)
class Reach:
    """One name of another library that is reached for.

    :param owner: the module or class that has it, as it is imported.
    :param name: of a function, method or attribute.
    :param kind: an ``override`` is called by the library; an ``attribute`` is one of instances.
    :param why: its use.
    :param takes: the names of the arguments that it is called with.
    :param added: the release that brought it, where older ones are accepted: a run does without
        it there.
    """

    owner: str
    name: str
    kind: ReachKind
    why: str
    takes: tuple[str, ...] = ()
    added: str = ""

    @property
    def library(self) -> str:
        return self.owner.partition(".")[0]

    @property
    def since(self) -> str:
        return SINCE[self.library]

    @property
    def is_expected(self) -> bool:
        """Whether the installed release is one that should have it."""
        return _numbers(_release(self.library)) >= _numbers(self.added)


_TRAINER = "transformers.trainer.Trainer"
_GRPO = "trl.trainer.grpo_trainer.GRPOTrainer"
_UTILS = "trl.trainer.utils"
_TEMPLATES = "trl.chat_template_utils"
_STATE = "accelerate.state"
_LAYER = "peft.tuners.tuners_utils.BaseTunerLayer"

_PHASE = "a checkpoint of a phase holds it"
_LOSS = "a resumed run logs the mean loss that an uninterrupted one does"
_SHARED = "process-wide state that a nested trainer writes; the clean room puts it back"
_HOT = "holds the temperature too"
_CHECKPOINTS = "a phase writes checkpoints of its own"
_BEFORE = "saves the model as it was before a phase that failed"
_RESUMED = "the checkpoint that a run resumes from is read off the running call"
_MIXED = "a burst takes its rows in the order in which they were mixed"
_WEIGHED = "what was sampled outside of TRL is weighted by its likelihood in training"
_DRAWN = "the rows of a batch are drawn when they are answered, not a batch ahead"
_ASKED = "a model is measured by answers that are asked for and read as GRPO does"
_HEAD = "the forward that it puts on holds the temperature in a closure"
_ADAPTERS = "the reference of a user's adapter is begun by a plain configuration of its own"
_MERGED = "merging that is only looked at is undone by bits"
_MODES = "an adapter that a model holds itself is known by its layers"

_SEARCH = "a search for hyperparameters saves each trial in a folder of its own"
_ENDS = Reach(
    _GRPO, "eos_token_ids", "attribute", "TRL collects the ends of answers there", added="1.14.2"
)

SEAM: tuple[Reach, ...] = (
    _ENDS,
    Reach(_TRAINER, "_save_checkpoint", "method", _BEFORE, ("model", "trial")),
    Reach(_TRAINER, "_trial", "attribute", _SEARCH),
    Reach(_TRAINER, "_get_output_dir", "method", _SEARCH, ("trial",)),
    Reach(_TRAINER, "_tr_loss", "attribute", _LOSS),
    Reach(_TRAINER, "_globalstep_last_logged", "attribute", _LOSS),
    Reach(_TRAINER, "_total_loss_scalar", "attribute", _PHASE),
    Reach(_TRAINER, "_get_train_sampler", "override", _MIXED, ("train_dataset",)),
    Reach(_TRAINER, "train", "method", _RESUMED, ("resume_from_checkpoint",)),
    Reach(_GRPO, "_generate_and_score_completions", "override", _DRAWN, ("inputs",)),
    Reach(_GRPO, "_generate_single_turn", "override", _ASKED),
    Reach(_TEMPLATES, "parse_response", "function", _ASKED, ("tokenizer", "prefix")),
    Reach(_GRPO, "_save_checkpoint", "override", _CHECKPOINTS, ("model", "trial")),
    Reach(_GRPO, "rollout_func", "attribute", "answers are sampled outside of TRL"),
    Reach(_GRPO, "_compute_loss", "override", _WEIGHED, ("model", "inputs")),
    Reach(_GRPO, "_get_per_token_logps_and_entropies", "override", _WEIGHED, ("model",)),
    Reach(_GRPO, "use_vllm", "attribute", _WEIGHED),
    Reach(_GRPO, "vllm_importance_sampling_correction", "attribute", _WEIGHED),
    Reach(_GRPO, "_step", "attribute", _PHASE),
    Reach(_GRPO, "_metrics", "attribute", _PHASE),
    Reach(_GRPO, "_total_train_tokens", "attribute", _PHASE),
    Reach(_GRPO, "_last_world_entropy", "attribute", _PHASE),
    Reach(_GRPO, "entropy_coef", "attribute", _PHASE),
    Reach(_GRPO, "epsilon_low", "attribute", _PHASE),
    Reach(_GRPO, "epsilon_high", "attribute", _PHASE),
    Reach(_GRPO, "beta", "attribute", "controllers change it, and TRL reads it at each use"),
    Reach(_GRPO, "temperature", "attribute", "controllers change it"),
    Reach(_GRPO, "generation_config", "attribute", _HOT),
    Reach(_GRPO, "generation_kwargs", "attribute", _HOT),
    Reach(_GRPO, "vllm_generation", "attribute", _HOT),
    Reach(_GRPO, "num_iterations", "attribute", "says when answers are used up"),
    Reach(_GRPO, "num_generations", "attribute", "says how a batch is grouped"),
    Reach(
        _UTILS,
        "add_fused_lm_head",
        "function",
        _HEAD,
        ("model", "temperature", "cast_lm_head_to_fp32", "outputs"),
        added="1.15",
    ),
    Reach(f"{_STATE}.AcceleratorState", "_shared_state", "class attribute", _SHARED),
    Reach(f"{_STATE}.PartialState", "_shared_state", "class attribute", _SHARED),
    Reach(f"{_STATE}.GradientState", "_shared_state", "class attribute", _SHARED),
    Reach("accelerate.accelerator.Accelerator", "scaler", "attribute", _PHASE),
    Reach("peft.peft_model.PeftModel", "peft_config", "attribute", _ADAPTERS),
    Reach(_LAYER, "merged_adapters", "class attribute", _MERGED),
    Reach(_LAYER, "active_adapters", "class attribute", _MODES),
)


def check_seam(names: Iterable[Reach] = SEAM) -> None:
    """Refuse a release of a library that lacks a name which a run reaches for.

    Looks at the code alone, which takes milliseconds, so that an attribute that a trainer gets
    only in its training is looked for before any.

    :raises ConfigError: in one line, naming library, release and name.
    """
    for reach in names:
        reason = lacking(reach) if reach.is_expected else None
        if reason is not None:
            raise ConfigError(
                f"risen-plugin {__version__} does not work with {reach.library} "
                f"{_release(reach.library)}: {reason} ({reach.why}); it works with some releases "
                f"from {reach.since} on, so install another one of {reach.library}"
            )


def lacking(reach: Reach) -> str | None:
    """The part of a name that a library lacks, in a few words; None where it has all."""
    try:
        owner = _imported(reach.owner)
    except (ImportError, AttributeError):
        return f"it has no {reach.owner}"
    if reach.kind == "attribute":
        named = any(reach.name in _names(cls) for cls in inspect.getmro(owner))
        return None if named else f"{reach.owner} has no attribute '{reach.name}'"
    value = getattr(owner, reach.name, None)
    if value is None:
        return f"it has no {reach.owner}.{reach.name}"
    if reach.kind == "class attribute":
        return None
    taken = inspect.signature(value).parameters
    missing = [name for name in reach.takes if name not in taken]
    return f"{reach.owner}.{reach.name} takes no '{missing[0]}'" if missing else None


def _imported(path: str) -> Any:
    """A module, or a class in one."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        module, _, name = path.rpartition(".")
        if not module or error.name != path:
            raise
        return getattr(importlib.import_module(module), name)


def _names(cls: type) -> set[str]:
    """Every attribute that the code of a class names."""
    names = set(vars(cls).get("__annotations__", {}))
    for value in vars(cls).values():
        called = value.fget if isinstance(value, property) else value
        code = getattr(inspect.unwrap(called) if callable(called) else None, "__code__", None)
        if code is not None:
            names.update(code.co_names)
    return names


def _release(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "(which is not installed)"


def _numbers(release: str) -> tuple[int, ...]:
    """The numbers at the front of a release, by which two of them are compared."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])


def checkpoints_activations(args: object) -> bool:
    """Whether these training arguments ask for gradient (activation) checkpointing.

    transformers 5 renames ``gradient_checkpointing`` to ``activation_checkpointing``.
    """
    new = getattr(args, "activation_checkpointing", None)
    return bool(getattr(args, "gradient_checkpointing", False) if new is None else new)


def checkpointing_setting(config: type, wanted: bool) -> dict[str, bool]:
    """The setting that turns it on or off in a training-arguments class, without a warning."""
    names = {entry.name for entry in dataclasses.fields(config)}
    new = "activation_checkpointing" in names
    return {"activation_checkpointing" if new else "gradient_checkpointing": wanted}


LIGERS_LOSS = "liger_loss"
"""TRL's name, before 1.14, for a loss of Liger's that has a temperature of its own."""


def fused_lm_head() -> Callable[..., None] | None:
    """TRL's function that puts its fused head on a model; None before 1.15.

    Older releases read the trainer's temperature wherever they take a likelihood.
    """
    utils = importlib.import_module(_UTILS)
    found: Callable[..., None] | None = getattr(utils, "add_fused_lm_head", None)
    return found


def collects_the_models_ends() -> bool:
    """Whether TRL ends an answer at every end in the model's generation config.

    In older releases than that of :data:`_ENDS` the tokenizer's alone ends one.
    """
    return _ENDS.is_expected


def parsed(tokenizer: object, ids: list[int], before: list[int]) -> Any:
    """The message that TRL parses an answer to.

    :param before: token ids of the prompt. TRL looks at tools, of which there are none, from 1.16
        on.
    """
    parse = importlib.import_module(_TEMPLATES).parse_response
    tools: dict[str, Any] = {"tools": []} if "tools" in inspect.signature(parse).parameters else {}
    return parse(tokenizer, ids, prefix=before, **tools)
