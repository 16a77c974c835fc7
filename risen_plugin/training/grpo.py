"""One stretch of GRPO through TRL's own trainer, on an adapter, inside the clean room.

Builds the trainer from the outer run's arguments, feeds it instructions as it asks for them and
collects its logs. Deciding, measuring and merging are left to the phase.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from datasets import IterableDataset
from peft import PeftModel
from tqdm.auto import tqdm
from transformers import (
    GenerationConfig,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl.trainer import grpo_trainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin.config import LoraSettings, check_batches, effective_grpo
from risen_plugin.config.grpo import GRPO_WORDS, check_fields, rows_per_batch
from risen_plugin.errors import ConfigError, near_miss, one_line
from risen_plugin.kit.checks import shown
from risen_plugin.kit.smoothing import in_words, running_mean
from risen_plugin.training.adapters import add_reference, base_of, fresh_lora, same_weights
from risen_plugin.training.noise import without_dropout, without_neftune
from risen_plugin.training.outside import Outside
from risen_plugin.training.phase_trainer import SERIES, PhaseTrainer, Supply
from risen_plugin.training.protocols import AdaptedModel, Model, Tokenizer
from risen_plugin.training.seam import checkpointing_setting, checkpoints_activations

if TYPE_CHECKING:
    from risen_plugin.training.anchoring import Anchors

MANAGED: Mapping[str, str] = {
    "output_dir": "the phase has a folder of its own",
    "max_steps": "the scheduler decides the steps of a phase",
    "bf16": "precision comes from the outer Trainer's arguments",
    "fp16": "precision comes from the outer Trainer's arguments",
    "use_cpu": "the device comes from the outer Trainer's arguments",
    "report_to": "metrics go to the outer Trainer's loggers",
    "save_strategy": "the phase keeps its adapter itself",
    "eval_strategy": "the guard measures",
    "do_eval": "the guard measures",
    "neftune_noise_alpha": "answers are sampled and learned from without noise",
    "reward_weights": "weights belong to the rewards: weight",
    "shuffle_dataset": "the generator decides the order of instructions",
    "gradient_checkpointing": "it comes from the outer Trainer's arguments",
    "activation_checkpointing": "it comes from the outer Trainer's arguments",
    "push_to_hub": "nothing of a phase is uploaded",
    "seed": "it is derived from the configuration's seed and the phase",
    "disable_tqdm": "it comes from the outer Trainer's arguments",
    "dataloader_num_workers": "instructions are drawn one batch at a time",
    "ddp_backend": "it comes from the outer Trainer's arguments",
    "ddp_timeout": "it comes from the outer Trainer's arguments",
}


class RewardFunction(Protocol):
    """A reward as TRL calls it, with the name that TRL logs it by and its weight."""

    __name__: str
    weight: float

    def __call__(self, *, prompts: list[Any], completions: list[Any], **columns: Any) -> Any: ...


_OF_TRLS_RENDERING = frozenset(
    ("conversation", "tools", "chat_template", "add_generation_prompt", "tokenize", "return_dict")
)
SETTINGS_REFUSED = "the settings under grpo or lora do not work: "
"""The beginning of the message where TRL or PEFT refuses them."""

_ROUTER_LOSS = "router_aux_loss_coef"
_PLACE = "risen_place"  # a row without a prompt, which TRL would refuse were it not replaced


def check_grpo_fields(fields: Mapping[str, Any], label: str) -> None:
    """Refuse a name that is no field of ``GRPOConfig`` or not for a phase to set, or a wrong value.

    Builds no ``GRPOConfig``: doing so disturbs the accelerator of a running Trainer.

    :raises ConfigError: naming the field and the near miss, or the values that it takes.
    """
    check_fields(GRPOConfig, fields, MANAGED, label, _words(fields))
    for name in ("chat_template_kwargs", "generation_kwargs"):
        if not isinstance(fields.get(name) or {}, Mapping):
            raise ConfigError(f"{label}.{name} is {shown(fields[name])}; it is a mapping")
    for name in fields.get("chat_template_kwargs") or {}:
        if name in _OF_TRLS_RENDERING:
            raise ConfigError(
                f"{label}.chat_template_kwargs has '{name}', which TRL sets itself; leave it out"
            )
    if not fields.get("use_vllm"):
        _check_generation(fields.get("generation_kwargs") or {}, f"{label}.generation_kwargs")


def _check_generation(settings: Mapping[str, Any], label: str) -> None:
    """Refuse names that no answer would be generated by, and answers that TRL cannot count."""
    known = vars(GenerationConfig()).keys()
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(
                f"{label} has '{name}', which is no setting of transformers' GenerationConfig"
                f"{near_miss(str(name), known)}"
            )
        if name == "num_return_sequences" and value not in (None, 1):
            raise ConfigError(
                f"{label}.num_return_sequences is {shown(value)}, but TRL expects one answer to "
                "each prompt that it passes; num_generations says how many there are"
            )


def _words(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """The words that each of these fields takes; a release that knows more is believed."""
    source = inspect.getsource(grpo_trainer)

    def of(name: str) -> list[str]:
        word = fields.get(name)
        return [word] if isinstance(word, str) and f'"{word}"' in source else []

    return {name: [*words, *of(name)] for name, words in GRPO_WORDS.items()}


@dataclass(frozen=True)
class Plan:
    """The task of one stretch of GRPO.

    :param steps: optimizer steps.
    :param grpo: fields of ``GRPOConfig``, the scheduler's parameters included.
    :param seed: of adapter, sampling and order.
    :param output_dir: the folder for files of TRL's own.
    :param label: of the progress bar.
    :param max_weight: the largest weight of a token that was sampled outside of TRL.
    """

    steps: int
    grpo: Mapping[str, Any]
    lora: LoraSettings
    seed: int
    output_dir: str
    label: str
    quiet: bool = False
    max_weight: float = 2.0


@dataclass
class GrpoLogs:
    """The logs of a stretch of GRPO: one entry per logging step.

    :param listener: gets the GRPO step and the numbers of each entry as it is logged.
    """

    entries: list[dict[str, float]] = field(default_factory=list)
    listener: Callable[[int, Mapping[str, float]], None] | None = None

    def first(self, name: str) -> float | None:
        return next((log[name] for log in self.entries if name in log), None)

    def last(self, name: str) -> float | None:
        return next((log[name] for log in reversed(self.entries) if name in log), None)

    def as_metrics(self) -> dict[str, float]:
        """The numbers that were logged last, and the first reward."""
        logged = {name: self.last(name) for name in SERIES} | {"reward_first": self.first("reward")}
        return {name: value for name, value in logged.items() if value is not None}


def build_trainer(
    model: Model,
    tokenizer: Tokenizer,
    rewards: Sequence[RewardFunction],
    supply: Supply,
    *,
    outer: TrainingArguments,
    plan: Plan,
    save: Callable[[PhaseTrainer], None] | None = None,
    outside: Outside | None = None,
    anchors: Anchors | None = None,
) -> PhaseTrainer:
    """TRL's trainer around ``model``: a fresh LoRA on a plain model, the user's adapter else.

    :param save: writes a checkpoint of the phase when a callback asks the trainer for one.
    :param outside: samples the answers in place of TRL.
    :param anchors: that the model is held to.
    :raises ConfigError: if TRL refuses the settings, with its reason.
    """
    with _settings_refused(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL and PEFT warn of settings that are meant
        args = GRPOConfig(**(_router_loss(model) | grpo_arguments(outer, plan, rewards)))
    rows = rows_per_batch(effective_grpo(plan.grpo), outer.world_size)
    is_adapted = isinstance(model, PeftModel)
    base = base_of(model)
    without_neftune(model)
    if plan.grpo.get("disable_dropout", True):
        without_dropout(model)
    set_seed(plan.seed)  # the adapter's first weights, which TRL seeds from 1.15 on alone
    with same_weights(model), _settings_refused(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        beta = args.beta
        if is_adapted and not args.sync_ref_model:  # which TRL refuses
            args.beta = 0.0  # so that it makes no copy of the adapter
        trainer = PhaseTrainer(
            supply=supply,
            rows=rows,
            save=save,
            bare_forward=vars(base).get("forward"),
            anchors=anchors,
            model=model,
            reward_funcs=list(rewards),
            args=args,
            train_dataset=IterableDataset.from_generator(_places, gen_kwargs={"count": rows}),
            processing_class=tokenizer,
            peft_config=None if is_adapted else fresh_lora(model, plan.lora),
            rollout_func=None if outside is None else outside.rollout,
        )
    if outside is not None:
        trainer.max_weight = plan.max_weight
    trainer.beta = args.beta = beta
    if is_adapted and beta != 0.0:
        with _settings_refused():
            add_reference(cast(AdaptedModel, model))
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if args.use_vllm:
        from risen_plugin.training.vllm import synchronize_exactly  # what few runs need

        synchronize_exactly(trainer.vllm_generation)
    return trainer


def train(
    trainer: GRPOTrainer,
    plan: Plan,
    logs: GrpoLogs | None = None,
    *,
    steering: TrainerCallback | None = None,
) -> GrpoLogs:
    """Run the trainer to its end behind one progress bar.

    :param logs: collects the logs, also if the training does not come to its end.
    :param steering: may change the trainer's settings, or end it early.
    """
    logs = GrpoLogs() if logs is None else logs
    with tqdm(
        total=plan.steps, desc=plan.label, unit="step", leave=False, disable=plan.quiet
    ) as bar:
        trainer.add_callback(_Listener(logs, bar))
        if steering is not None:
            trainer.add_callback(steering)
        with _settings_refused(), _masking_is_meant(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            try:
                trainer.train()
            finally:
                if trainer.use_vllm:
                    from risen_plugin.training.vllm import release

                    release(trainer)
    return logs


@contextmanager
def _masking_is_meant() -> Iterator[None]:
    """Keep TRL from printing a whole row for each batch with answers that may not count."""

    def is_other(record: logging.LogRecord) -> bool:
        return "All reward functions returned None" not in str(record.msg)

    logger = logging.getLogger(GRPOTrainer.__module__)
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


@contextmanager
def _settings_refused() -> Iterator[None]:
    """Turn a refusal of TRL's or PEFT's into one line: the settings are wrong.

    An error from deeper down, in torch or in our own code, is passed on as it is.
    """
    try:
        yield
    except (TypeError, ValueError, ImportError, NotImplementedError) as error:
        last = deque(traceback.walk_tb(error.__traceback__), maxlen=1)[0][0]
        library = last.f_globals.get("__name__", "").split(".")[0]
        if library not in ("trl", "peft"):
            raise
        reason = one_line(error)
        raise ConfigError(f"{SETTINGS_REFUSED}{reason}") from error


def grpo_arguments(
    outer: TrainingArguments, plan: Plan, rewards: Sequence[RewardFunction]
) -> dict[str, Any]:
    """The arguments of ``GRPOConfig``: defaults, the user's, and those that the phase manages."""
    chosen = effective_grpo(plan.grpo)
    check_batches(chosen)
    return {
        **chosen,
        "output_dir": plan.output_dir,
        "max_steps": plan.steps,
        "bf16": bool(outer.bf16),
        "fp16": bool(outer.fp16),
        "use_cpu": bool(outer.use_cpu),
        "report_to": [],
        "save_strategy": "no",
        "eval_strategy": "no",
        "reward_weights": [reward.weight for reward in rewards],
        "shuffle_dataset": False,
        "dataloader_num_workers": 0,
        "ddp_backend": outer.ddp_backend,
        "ddp_timeout": outer.ddp_timeout,
        "dataloader_pin_memory": bool(outer.dataloader_pin_memory) and outer.device.type != "cpu",
        "disable_tqdm": True,
        "seed": plan.seed,
        **checkpointing_setting(GRPOConfig, checkpoints_activations(outer)),
    }


def _router_loss(model: Model) -> dict[str, Any]:
    """The weight 0 for the load-balancing loss where TRL cannot compute it; else TRL's own.

    TRL 1.16 reads ``num_experts`` for it from the config of whatever may return its router's
    logits, and Granite 4's (``granitemoehybrid``), dense or not, has no such field; a dense Doge
    has the field and no router.
    """
    config = model.config.get_text_config()
    is_known = any(entry.name == _ROUTER_LOSS for entry in dataclasses.fields(GRPOConfig))
    has_none = not hasattr(config, "num_experts") or getattr(config, "is_moe", True) is False
    if is_known and hasattr(config, "output_router_logits") and has_none:
        return {_ROUTER_LOSS: 0.0}
    return {}


def _places(count: int) -> Iterator[dict[str, int]]:
    """An endless stream of places in a generation batch of ``count`` rows.

    The dataloader fetches a batch ahead of the one that it hands out, so that those rows would
    be drawn before the batch in hand is scored. It gets places; the rows are drawn where they are
    answered.
    """
    while True:
        for place in range(count):
            yield {_PLACE: place}


class _Listener(TrainerCallback):
    def __init__(self, collected: GrpoLogs, bar: tqdm[Any]) -> None:
        self.collected = collected
        self.bar = bar

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        numbers = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, int | float)
        }
        self.collected.entries.append({"step": float(state.global_step), **numbers})
        if self.collected.listener is not None:
            self.collected.listener(state.global_step, numbers)
        if "reward" in numbers:
            logged = [log["reward"] for log in self.collected.entries if "reward" in log]
            self.bar.set_postfix(reward=in_words(*running_mean(logged)[-1]))
