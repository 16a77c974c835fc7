"""The defaults of ``risen adapt`` by the size of a model and the device. Pure, but for two looks.

What each is for, and what it was measured on, is in ``docs/explanation/recipe.md``. Nothing here
holds where a person sets it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from risen_plugin.commands.train.models import config_of

_MEASURED = 135e6  # parameters of the model that the rate was measured on
_RATE = 4e-4
_LEAST_RATE = 2e-5
_SMALL = 20e6  # parameters below which everything stays as it is: a step takes a second
_ROLLOUTS = 32
_TOKENS = 96
STEPS = 40
"""GRPO steps of a phase of ``risen adapt``."""
_STEPS, _STEPS_MENDED = 50, 25  # of the runs that the defaults above 20 M were measured in
_MENDED = 2800  # answers, learned from in 350 steps before those
_WEIGHT = 0.25  # of their loss, beside the anchors' divergence
_HELD = 128  # tokens of an anchor
_LOGITS = 256 * 1024**2  # bytes of fp32 logits that one backward pass may make
_BATCH = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "steps_per_generation",
    "generation_batch_size",
    "num_generations",
)


@dataclass(frozen=True)
class Kind:
    """What the defaults depend on.

    :param parameters: of the model, about.
    :param device: ``cpu`` or another.
    :param has_bf16: whether the device computes in bf16 quicker than in fp32.
    """

    parameters: float
    vocabulary: int
    device: str = "cpu"
    has_bf16: bool = False


def recipe(kind: Kind, *, adds_constraints: bool) -> dict[str, Any]:
    """Parts of a run: ``fine_tune``, and of ``risen`` those that differ from the general defaults.

    :param adds_constraints: whether the instructions are plain prompts with constraints added.
    """
    if kind.parameters < _SMALL:
        return {}
    rows = rows_at_once(kind.vocabulary)
    grpo = {
        "learning_rate": rate(kind.parameters),
        "lr_scheduler_type": "linear",
        "warmup_steps": 3,
        "temperature": 0.8,
        "max_completion_length": _TOKENS,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": _ROLLOUTS // rows,
    }
    risen: dict[str, Any] = {
        "grpo": grpo,
        "anchor": {"weight": 1.0, "tokens": _HELD, "marks": True},
        "guard": {"strengths": [0.5, 0.25]},
    }
    if adds_constraints:
        risen["curriculum"] = {"initial": 3000}
        risen["generator"] = {"options": {"maximum": 3}}
        risen["mending"] = {"rows": _MENDED, "weight": _WEIGHT}
    if kind.device != "cpu":
        return {"risen": risen}
    risen["rollout"] = "auto"
    return {"risen": risen, "fine_tune": {"bf16": True}} if kind.has_bf16 else {"risen": risen}


def rate(parameters: float) -> float:
    """The learning rate of an adapter: that of the measured model, less with the root of the size.

    >>> rate(135e6), rate(8e9)
    (0.0004, 5.2e-05)
    """
    scaled = _RATE * (_MEASURED / parameters) ** 0.5
    return float(f"{max(_LEAST_RATE, min(_RATE, scaled)):.2g}")


def steps_of(parameters: float, *, mends: bool) -> int:
    """GRPO steps where a person says nothing.

    More where a step changes less, and fewer where most was learned before.

    :param mends: whether the phase begins with mended answers.
    """
    if parameters < _SMALL:
        return STEPS
    return _STEPS_MENDED if mends else _STEPS


def rows_at_once(vocabulary: int) -> int:
    """Answers of one backward pass: as many as have few enough logits, 32 at the most.

    >>> rows_at_once(49_152), rows_at_once(152_000), rows_at_once(512)
    (8, 4, 32)
    """
    rows = _ROLLOUTS
    while rows > 1 and rows * _TOKENS * vocabulary * 4 > _LOGITS:
        rows //= 2
    return rows


def with_recipe(
    run: Mapping[str, Any], parts: Mapping[str, Any], pairs: Sequence[str]
) -> dict[str, Any]:
    """A run with the parts of a recipe that it does not state itself.

    :param pairs: what a person sets, ``name=value``. Who sets one number of a batch of answers sets
        all of them, since they hang together.
    """
    named = {pair.partition("=")[0].strip() for pair in pairs}
    parts = _without_batch(parts) if named & {f"risen.grpo.{name}" for name in _BATCH} else parts
    return _merged(run, parts)


def kind_of(model: str) -> Kind:
    """What is known of a model before it is loaded.

    :param model: a folder or hub id.
    :raises ConfigError: if there is none, or its configuration cannot be read.
    """
    import torch

    config = config_of(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flags: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return Kind(
        parameters=size_of(config),
        vocabulary=int(config.vocab_size),
        device=device,
        has_bf16=bool(flags.get("avx512_bf16") or flags.get("amx_bf16")),
    )


def size_of(config: Any) -> float:
    """About how many parameters a decoder of such a configuration has, embeddings counted once."""
    layers, hidden, words, inner, heads, groups = (
        int(getattr(config, name, None) or 0)
        for name in (
            "num_hidden_layers",
            "hidden_size",
            "vocab_size",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
        )
    )
    shared = (groups or heads) / heads if heads else 1.0  # keys and values of groups of heads
    layer = hidden * (2 * hidden * (1.0 + shared) + 3 * (inner or 4 * hidden))
    return float(layers * layer + words * hidden)


_SAID = {
    "grpo.learning_rate": "learning rate {:g}",
    "grpo.temperature": "temperature {:g}",
    "grpo.max_completion_length": "answers of {} tokens",
    "rollout": "rollout {}",
    "curriculum": "curriculum",
    "anchor": "anchors",
    "mending": "mended answers",
}
"""What is said of a recipe, by its place in the section ``risen``."""


def in_words(kind: Kind, parts: Mapping[str, Any], pairs: Sequence[str] = ()) -> str:
    """One line that says which defaults were chosen, and for what.

    :param pairs: what a person sets, ``name=value``; that was not chosen, and is left out.
    """
    named = {pair.partition("=")[0].strip().removeprefix("risen.") for pair in pairs}
    said = []
    for place, words in _SAID.items():
        section, _, field = place.partition(".")
        value = parts["risen"].get(section)
        value = value.get(field) if field and value else value
        if value is not None and not named & {place, section, f"{place}.use"}:
            said.append(words.format(value))
    if parts.get("fine_tune", {}).get("bf16") and not named & {"fine_tune", "fine_tune.bf16"}:
        said.append("bf16")
    size = f"about {kind.parameters / 1e6:,.0f} M parameters on {kind.device}"
    return f"defaults for {size}: {', '.join(said) or 'none is left'}; --set changes any"


def _merged(run: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(run)
    for name, value in parts.items():
        if name not in made:
            made[name] = value
        elif isinstance(value, Mapping) and isinstance(made[name], Mapping):
            made[name] = _merged(made[name], value)
    return made


def _without_batch(parts: Mapping[str, Any]) -> dict[str, Any]:
    if "risen" not in parts:
        return dict(parts)
    grpo = {name: value for name, value in parts["risen"]["grpo"].items() if name not in _BATCH}
    return {**parts, "risen": {**parts["risen"], "grpo": grpo}}
