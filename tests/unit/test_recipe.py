"""The defaults of ``risen adapt`` by the size of a model and the device."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from risen_plugin.commands.train.recipe import (
    Kind,
    in_words,
    kind_of,
    rate,
    recipe,
    rows_at_once,
    size_of,
    steps_of,
    with_recipe,
)
from risen_plugin.embedded import base_model
from risen_plugin.errors import ConfigError

SMOLLM2 = Kind(135e6, 49_152, has_bf16=True)


def test_a_small_model_keeps_the_general_defaults() -> None:
    kind = kind_of(str(base_model()))
    assert kind.parameters < 1.2e6
    assert recipe(kind, adds_constraints=True) == {}


def test_a_real_model_on_a_cpu_samples_by_the_faster_way_and_computes_in_bf16() -> None:
    made = recipe(SMOLLM2, adds_constraints=True)
    assert made["risen"]["anchor"]
    assert made["fine_tune"] == {"bf16": True}
    assert made["risen"]["rollout"] == "auto"
    assert made["risen"]["curriculum"]
    assert made["risen"]["generator"] == {"options": {"maximum": 3}}


def test_what_a_device_or_the_instructions_do_not_call_for_is_left_out() -> None:
    made = recipe(Kind(135e6, 49_152, device="cuda"), adds_constraints=False)
    assert set(made) == {"risen"}
    assert set(made["risen"]) == {"anchor", "grpo", "guard"}


@pytest.mark.parametrize("vocabulary", [512, 49_152, 152_000, 1_000_000])
def test_an_optimizer_step_has_as_many_answers_whatever_fits_at_once(vocabulary: int) -> None:
    grpo = recipe(Kind(135e6, vocabulary), adds_constraints=False)["risen"]["grpo"]
    assert grpo["per_device_train_batch_size"] == rows_at_once(vocabulary)
    assert grpo["per_device_train_batch_size"] * grpo["gradient_accumulation_steps"] == 32


def test_larger_models_learn_more_slowly() -> None:
    rates = [rate(size) for size in (20e6, 135e6, 0.5e9, 1.7e9, 8e9, 400e9)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == rates[1] == 4e-4
    assert rates[-1] == 2e-5


def test_a_large_model_is_given_more_steps() -> None:
    sizes = (0.92e6, 135e6, 8e9)
    assert [steps_of(size, mends=False) for size in sizes] == [40, 50, 50]


def test_most_is_learned_from_mended_answers_where_constraints_are_added() -> None:
    assert [steps_of(size, mends=True) for size in (0.92e6, 135e6)] == [40, 25]
    made = recipe(SMOLLM2, adds_constraints=True)["risen"]
    assert made["mending"] == {"rows": 2800, "weight": 0.25}
    assert made["anchor"] == {"weight": 1.0, "tokens": 128, "marks": True}


def test_what_a_run_states_stays() -> None:
    run = {"model": "m", "risen": {"rollout": "transformers", "grpo": {"temperature": 1.0}}}
    made = with_recipe(run, recipe(SMOLLM2, adds_constraints=False), ())
    assert made["risen"]["rollout"] == "transformers"
    assert made["risen"]["grpo"]["temperature"] == 1.0
    assert made["risen"]["grpo"]["learning_rate"] == 4e-4


def test_a_number_of_the_batch_that_a_person_sets_sets_all_of_them() -> None:
    made = with_recipe(
        {"risen": {}},
        recipe(SMOLLM2, adds_constraints=False),
        ["risen.grpo.per_device_train_batch_size=16"],
    )
    grpo = made["risen"]["grpo"]
    assert "gradient_accumulation_steps" not in grpo
    assert grpo["learning_rate"] == 4e-4


def test_the_choice_is_said_in_one_line() -> None:
    line = in_words(SMOLLM2, recipe(SMOLLM2, adds_constraints=True))
    assert "135 M" in line
    assert "learning rate 0.0004" in line
    assert "\n" not in line


def test_what_a_person_sets_is_not_said_to_be_a_default() -> None:
    parts = recipe(SMOLLM2, adds_constraints=True)
    chosen = in_words(SMOLLM2, parts)
    pairs = ("risen.grpo.learning_rate=1e-5", "risen.mending=null", "risen.rollout=transformers")
    line = in_words(SMOLLM2, parts, pairs)
    for word in ("learning rate", "mended answers", "rollout"):
        assert word in chosen
        assert word not in line
    assert "temperature 0.8" in line
    assert "rollout" not in in_words(SMOLLM2, parts, ["risen.rollout.use=onnx"])
    names = ("grpo", "rollout", "curriculum", "anchor", "mending")
    assert "none is left" in in_words(
        Kind(135e6, 49_152), parts | {"fine_tune": {}}, [f"risen.{name}=null" for name in names]
    )


def test_the_size_is_that_of_the_weights_without_loading_them() -> None:
    """Of a Llama with shared keys and values; norms are left out, less than 0.1 %."""
    config = AutoConfig.for_model(
        "llama",
        num_hidden_layers=3,
        hidden_size=96,
        intermediate_size=256,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=500,
        tie_word_embeddings=True,
    )
    weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    assert size_of(config) == pytest.approx(weights, rel=3e-3)


def test_a_model_that_is_not_there_is_refused_as_where_it_would_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no model folder"):
        kind_of(str(tmp_path / "none"))


def test_the_embedded_model_is_known_by_its_name() -> None:
    assert kind_of("embedded") == kind_of(str(base_model()))


def test_a_configuration_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')
    with pytest.raises(ConfigError, match=r"^model .* cannot be loaded: [^\n]+$"):
        kind_of(str(tmp_path))
