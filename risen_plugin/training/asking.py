"""One way of asking a model: the same in GRPO and wherever a model is measured or answers.

TRL puts a prompt through the chat template, generates, and reads the answer out of the tokens.
:class:`Asking` does each of these as TRL does (1.16, ``GRPOTrainer._generate``), but greedily.
:func:`as_asked` is what both generate in: without the model's own generation settings, and in the
precision of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jinja2.exceptions import TemplateError
from transformers import GenerationConfig, TrainingArguments

from risen_plugin.contracts import Completion, Message, Prompt, text_of
from risen_plugin.errors import ConfigError, DataError, one_line
from risen_plugin.training.adapters import base_of
from risen_plugin.training.protocols import Model, Tokenizer
from risen_plugin.training.seam import collects_the_models_ends, parsed

_SAMPLING = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h"),
    *("typical_p", "epsilon_cutoff", "eta_cutoff"),
)
"""Generation settings that only sampling has a use for."""

_OWN_DISTRIBUTION: Mapping[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0}
"""Sampling from the model's own distribution; transformers takes the 50 likeliest by default."""


_SETTINGS = "generation_config"


@dataclass(frozen=True)
class Asking:
    """The way in which one phase asks its model.

    :param grpo: the phase's fields of ``GRPOConfig``.
    :param precision: of :func:`precision_of`; None computes in the weights' own.
    """

    tokenizer: Tokenizer
    grpo: Mapping[str, Any] = field(default_factory=dict)
    precision: torch.dtype | None = None

    @property
    def template(self) -> Mapping[str, Any]:
        """Further arguments of the chat template, such as ``enable_thinking``."""
        return self.grpo.get("chat_template_kwargs") or {}

    @property
    def answer_tokens(self) -> int:
        """Most tokens of an answer."""
        return int(self.grpo["max_completion_length"])

    def with_room(self, tokens: int) -> Asking:
        """The same way, for answers of at most so many tokens."""
        return replace(self, grpo={**self.grpo, "max_completion_length": tokens})

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt as the model sees it."""
        return prompt_ids(self.tokenizer, prompt, self.template)

    def greedy(self, model: Model) -> GenerationConfig:
        """TRL's settings, for the likeliest token in place of a sampled one."""
        settings: dict[str, Any] = {
            "repetition_penalty": self.grpo.get("repetition_penalty", 1.0),
            "cache_implementation": self.grpo.get("cache_implementation"),
            **(self.grpo.get("generation_kwargs") or {}),
        }
        kept = {name: value for name, value in settings.items() if name not in _SAMPLING}
        return self._config(model, {**kept, "do_sample": False})

    def sampled(self, model: Model) -> GenerationConfig:
        """Sampling from the model's own distribution."""
        invalid = {"remove_invalid_values": True}  # a broken model is for the losses to show
        return self._config(model, {**_OWN_DISTRIBUTION, **invalid})

    def _config(self, model: Model, settings: Mapping[str, Any]) -> GenerationConfig:
        tokenizer = self.tokenizer
        pad = tokenizer.pad_token_id
        return GenerationConfig(
            **{
                "max_new_tokens": self.answer_tokens,
                "eos_token_id": end_ids(model, tokenizer),
                "pad_token_id": tokenizer.eos_token_id if pad is None else pad,
                "bos_token_id": getattr(tokenizer, "bos_token_id", None),
                **settings,
            },
            disable_compile=True,
        )

    def read(
        self, prompts: Sequence[Prompt], asked: Sequence[list[int]], made: Sequence[list[int]]
    ) -> list[Completion]:
        """Answers as TRL hands them to rewards: chat messages for chat prompts, text for text.

        Where the tokenizer has a response template (or schema), TRL parses a message by it, so
        that a thought or a tool call is no part of its ``content``.

        :param asked: token ids of the prompts.
        :param made: token ids of the answers, without padding.
        """
        tokenizer: Any = self.tokenizer
        if not made:  # which transformers would decode as one text
            return []
        texts: list[str] = tokenizer.batch_decode(made, skip_special_tokens=True)
        is_parsed = any(
            getattr(tokenizer, name, None) is not None
            for name in ("response_template", "response_schema")
        )
        completions: list[Completion] = []
        for prompt, text, before, ids in zip(prompts, texts, asked, made, strict=True):
            if isinstance(prompt, str):
                completions.append(text)
            elif is_parsed:
                completions.append([self._parsed(ids, before)])
            else:
                completions.append([{"role": "assistant", "content": text}])
        return completions

    def _parsed(self, ids: list[int], before: list[int]) -> Message:
        tokenizer: Any = self.tokenizer
        try:
            message: Message = parsed(tokenizer, ids, before)
        except AttributeError as error:  # TRL's sampling ends in it, too
            raise ConfigError(
                "the tokenizer's response_schema is of a form that this transformers does not "
                "parse; set tokenizer.response_template (TRL's add_response_schema does it), or "
                "response_schema to None"
            ) from error
        return message


@contextmanager
def as_asked(model: Model, precision: torch.dtype | None) -> Iterator[None]:
    """Let ``model`` generate by the settings of the call alone, and in the run's precision.

    transformers fills in what a call leaves open from the model's own settings (5.23,
    ``_prepare_generation_config``): beams, n-gram bans, least lengths, ``use_cache=False``. They
    are meant for those who use the finished model. An answer that is sampled under them has not
    the likelihood that GRPO learns by.

    TRL calls ``generate`` of the model inside PEFT's, whose forward accelerate has not put under
    autocast.
    """
    own = model.generation_config
    bare = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    # Settings that were given to PEFT's model are its own, and it hands them on.
    holders: list[Any] = [one for one in (model, base_of(model)) if _SETTINGS in vars(one)]
    before = [getattr(holder, _SETTINGS) for holder in holders]
    for holder in holders:
        setattr(holder, _SETTINGS, bare)
    try:
        with in_precision(model, precision):
            yield
    finally:
        for holder, settings in zip(holders, before, strict=True):
            setattr(holder, _SETTINGS, settings)


def in_precision(model: Model, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    """Compute as the outer Trainer does: under autocast where it trains in mixed precision."""
    if precision is None:
        return nullcontext()
    return torch.autocast(model.device.type, dtype=precision)


def precision_of(args: TrainingArguments) -> torch.dtype | None:
    """The type that training arguments have autocast compute in; None without autocast."""
    named = getattr(args, "mixed_precision", None)  # also what `accelerate launch` was given
    if args.bf16 or named == "bf16":
        return torch.bfloat16
    return torch.float16 if args.fp16 or named == "fp16" else None


def prompt_ids(tokenizer: Tokenizer, prompt: Prompt, template: Mapping[str, Any] = {}) -> list[int]:
    """Token ids of a prompt as the model sees it: text as it is, chat through the template.

    :param template: further arguments of the chat template.
    """
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    text = rendered(tokenizer, prompt, add_generation_prompt=True, **template)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def template_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the chat template that a row brings along: tools, and any others."""
    tools = row.get("tools")
    tools = json.loads(tools) if isinstance(tools, str) else tools
    return {**({"tools": tools} if tools else {}), **(row.get("chat_template_kwargs") or {})}


def rendered(tokenizer: Tokenizer, messages: Sequence[Message], **template: Any) -> str:
    """Chat messages as the text that the model sees.

    :raises ConfigError: if the tokenizer has no chat template.
    :raises DataError: if the template refuses the messages, with its reason: a role that it does
        not have, or a message without a text.
    """
    check_chat(tokenizer)
    try:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, **template)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        roles = ", ".join(str(message.get("role")) for message in messages)
        start = " ".join(text_of(messages).split())[:60]
        raise DataError(
            f"the chat template refuses the messages {start!r}... of the roles {roles}: "
            f"{one_line(error)}; write such rows as the template takes them, or leave them out"
        ) from error
    return text


def check_chat(tokenizer: Tokenizer) -> None:
    """Refuse chat messages for a tokenizer that has no chat template.

    :raises ConfigError: with advice.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "there are chat messages to read, but the tokenizer has no chat template; set "
            "tokenizer.chat_template, or give prompts as plain text (generators that make chats "
            "of texts take chat=False)"
        )


def end_ids(model: Model, tokenizer: Tokenizer) -> list[int]:
    """Every token id that ends an answer, as TRL collects them."""
    declared = model.generation_config.eos_token_id if collects_the_models_ends() else None
    ids = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.insert(0, tokenizer.eos_token_id)
    return ids
