"""What the model builder is told, as a table of configurations and changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from risen_export.backends.genai_mended import layers_without_rope
from risen_export.backends.genai_told import GONE, told
from tests.export.architectures import BY_NAME, LINEAR_ROPE, WINDOW, Architecture, config_of


@dataclasses.dataclass(frozen=True)
class Turned:
    width: int
    factor: float = 1.0


def told_of(name: str, width: int = 16, factor: float = 1.0, **changes: Any) -> dict[str, Any]:
    one = BY_NAME[name]
    config = config_of(Architecture(name, one.kind, "", {**one.changes, **changes}))
    declared = {field.name for field in dataclasses.fields(config)}
    return told(config.to_dict(), declared, {"": Turned(width, factor)})


@pytest.mark.parametrize(
    "name", ["llama", "granite", "ernie", "gemma", "hunyuan", "nemotron", "olmo", "phi"]
)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sliding_window", WINDOW),
        ("layer_types", ["sliding_attention"] * 2),
        ("final_logit_softcapping", 30.0),
        ("seq_length", 64),
        ("num_experts", 8),
        ("moe_intermediate_size", 8),
        ("rope_position_scale", 2.0),
    ],
)
def test_a_field_that_the_class_does_not_have_is_hidden(name: str, field: str, value: Any) -> None:
    assert told_of(name, **{field: value})[field] is GONE


@pytest.mark.parametrize("name", ["qwen2-window", "qwen3", "gemma2", "gemma3", "smollm3-window"])
def test_a_field_that_the_class_has_is_left(name: str) -> None:
    assert not {"sliding_window", "layer_types", "final_logit_softcapping"} & set(told_of(name))


@pytest.mark.parametrize("name", ["mistral", "phi3"])
def test_a_window_that_the_class_has_in_every_layer_is_named_for_each(name: str) -> None:
    assert told_of(name)["layer_types"] == ["sliding_attention"] * 2
    assert told_of(name, sliding_window=None).get("layer_types", GONE) is GONE


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("phi", {"layer_norm_eps": 0.03}, {"rms_norm_eps": 0.03}),
        ("nemotron", {"norm_eps": 0.02}, {"rms_norm_eps": 0.02}),
        ("olmo", {}, {"rms_norm_eps": 1e-5}),
        ("ministral", {}, {"architectures": ["MistralForCausalLM"]}),
        ("smollm3", {}, {"no_rope_layers": [1, 1, 1, 1]}),
        ("gemma3", {}, {"rope_local_base_freq": 10000.0}),
        ("llama", {"rope_parameters": LINEAR_ROPE}, {"partial_rotary_factor": 1.0}),
    ],
)
def test_a_field_has_the_name_that_the_builder_knows(
    name: str, changes: Mapping[str, Any], said: Mapping[str, Any]
) -> None:
    assert said.items() <= told_of(name, **changes).items()


def test_rope_is_plain_since_its_tables_are_overwritten() -> None:
    for name in ("llama-rope-linear", "llama-rope-yarn", "qwen3-rope-yarn", "gemma3-rope-linear"):
        assert told_of(name)["rope_parameters"]["rope_type"] == "default"


def test_longrope_has_the_factor_of_the_class_for_both_tables() -> None:
    rope = told_of("phi3-longrope", factor=1.25)["rope_parameters"]
    assert (rope["type"], rope["short_mscale"], rope["long_mscale"]) == ("longrope", 1.25, 1.25)


def test_tables_have_the_rotated_dimensions_of_the_class() -> None:
    assert told_of("llama", width=16)["partial_rotary_factor"] == 1.0
    assert told_of("llama-heads", width=16)["partial_rotary_factor"] == 0.5


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("llama", set()),
        ("smollm3", {3}),
        ("smollm3-window", {1}),
        ("granite4", {0, 1}),
        ("granite4-rope", set()),
    ],
)
def test_layers_without_rope_are_known(name: str, layers: set[int]) -> None:
    assert layers_without_rope(config_of(BY_NAME[name]).to_dict()) == layers
