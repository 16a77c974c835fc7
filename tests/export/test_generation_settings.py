"""A bundle follows the settings of generation as transformers does, or says that it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from risen_export import Bundle, export
from risen_export.bundles import manifest
from risen_export.bundles.publish import complete
from risen_export.runtime.logits import NOT_FOLLOWED, Row, Settings, not_followed
from risen_plugin.errors import DataError, ExportError

VOCABULARY, EOS, LIMIT = 30, 7, 9
FOLLOWED: dict[str, Any] = {
    "sequence_bias": [[[3], 2.5], [[4, 5], -3.0], [[4, 5, 9], 6.0]],
    "encoder_repetition_penalty": 1.4,
    "repetition_penalty": 1.5,
    "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 3,
    "bad_words_ids": [[2], [4, 5], [EOS], [5, 4, 5, 1]],
    "min_length": 7,
    "min_new_tokens": 2,
    "forced_bos_token_id": 11,
    "forced_eos_token_id": [EOS, 8],
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": [1, 1.2],
    "suppress_tokens": [1, 12],
    "begin_suppress_tokens": [13, 14],
}
PROMPTS = ([4, 5, 4], [6], [1, 2, 3, 1, 2])
ANSWERS = ([], [5], [5, 4, 5], [4, 5, 4, 5, 4])


def by_transformers(settings: dict[str, Any], prompt: list[int], answer: list[int]) -> Any:
    """The scores after transformers' own processors, built as ``generate`` builds them."""
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    config = GenerationConfig(**settings, eos_token_id=EOS, max_length=LIMIT)
    config._eos_token_tensor = torch.tensor([EOS])
    tiny = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(tiny)
    process = model._get_logits_processor(
        config,
        input_ids_seq_length=len(prompt),
        encoder_input_ids=torch.tensor([prompt]),
        device="cpu",
    )
    return process(torch.tensor([prompt + answer]), torch.tensor(scores())[None].clone())[0].numpy()


def scores() -> Any:
    return np.random.default_rng(0).normal(0, 3, VOCABULARY).astype(np.float32)


def by_us(settings: dict[str, Any], prompt: list[int], answer: list[int]) -> Any:
    row = Row(prompt, answer, LIMIT, frozenset([EOS]))
    return Settings(settings).adjust(scores()[None], [row])[0]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{len(answer)}-so-far")
@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: f"prompt-of-{len(prompt)}")
@pytest.mark.parametrize("name", [*FOLLOWED, "all"])
def test_each_setting_changes_logits_as_in_transformers(
    name: str, prompt: list[int], answer: list[int]
) -> None:
    settings = FOLLOWED if name == "all" else {name: FOLLOWED[name]}
    if name == "all" and len(prompt) == 1:
        settings = {**settings, "forced_bos_token_id": None}
    ours, theirs = by_us(settings, prompt, answer), by_transformers(settings, prompt, answer)
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-6)


def test_every_setting_of_the_table_has_an_effect_somewhere() -> None:
    cases = [(prompt, answer) for prompt in PROMPTS for answer in ANSWERS]
    inert = {
        name
        for name, value in FOLLOWED.items()
        if all((by_us({name: value}, *case) == scores()).all() for case in cases)
    }
    assert inert == {"remove_invalid_values"}  # the scores have none


def test_values_that_are_not_numbers_are_replaced_where_the_model_says_so() -> None:
    odd = scores()
    odd[:3] = np.nan, np.inf, -np.inf
    row = Row([1], [], LIMIT, frozenset([EOS]))
    changed = Settings({"remove_invalid_values": True}).adjust(odd[None], [row])[0]
    assert np.isfinite(changed).all()
    assert np.isnan(odd[0])  # what was given stays as it is


@pytest.mark.parametrize(
    "neutral",
    [
        {},
        {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "suppress_tokens": []},
        {"repetition_penalty": None, "num_beams": 1, "temperature": 0.5, "top_k": 20},
    ],
    ids=["none", "neutral", "null"],
)
def test_settings_that_change_nothing_are_none(neutral: dict[str, Any]) -> None:
    assert Settings(neutral).followed == ()
    assert not_followed(neutral) == {}
    logits = scores()[None]
    assert Settings(neutral).adjust(logits, [Row([1], [], LIMIT, frozenset())]) is logits


@pytest.mark.parametrize(
    "odd",
    [
        {"repetition_penalty": "much"},
        {"repetition_penalty": 0},
        {"repetition_penalty": -1.5},
        {"repetition_penalty": float("inf")},
        {"no_repeat_ngram_size": -1},
        {"bad_words_ids": [3]},
        {"bad_words_ids": {"a": 1}},
        {"sequence_bias": [[3, 1.0]]},
        {"suppress_tokens": "all"},
        {"suppress_tokens": [-1]},
        {"min_new_tokens": [1, 2]},
        {"exponential_decay_length_penalty": [1]},
    ],
    ids=str,
)
def test_a_setting_of_another_kind_is_refused_by_its_name(odd: dict[str, Any]) -> None:
    with pytest.raises(ExportError, match=rf"generation_config.json: {next(iter(odd))} cannot be"):
        Settings(odd)


def test_a_token_beyond_the_vocabulary_is_refused() -> None:
    row = Row([1], [], LIMIT, frozenset([EOS]))
    with pytest.raises(ExportError, match="name a token that is not among its 30"):
        Settings({"suppress_tokens": [99]}).adjust(scores()[None], [row])


# In a bundle ---------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "repetition_penalty": 1.5,
    "no_repeat_ngram_size": 3,
    "min_new_tokens": 6,
    "bad_words_ids": [[70], [71, 72]],
    "suppress_tokens": [80],
    "num_beams": 4,
    "stop_strings": ["stop"],
}
PROMPT = "Hello there, hello there"


@pytest.fixture(scope="module")
def followed(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """A model with settings of its own, and what its export returned."""
    model = model_of(tokenizer)
    model.generation_config.update(**SETTINGS, temperature=0.4)  # odd without do_sample
    out = tmp_path_factory.mktemp("settings") / "out"
    return model, export("mine", out, model=model, tokenizer=tokenizer, progress=False, check=False)


@pytest.mark.slow
def test_a_bundle_answers_as_generate_does_with_the_models_settings(
    followed: tuple[Any, Any], tokenizer: Any
) -> None:
    model, result = followed
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    answer = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=32,
        do_sample=False,
        num_beams=1,
        stop_strings=None,
    )[0, ids.shape[1] :]
    bundle = Bundle.open(result.path, threads=1)
    rows = [ids[0].tolist(), ids[0].tolist()[:5]]
    plain = bundle.generate_ids(rows, max_new_tokens=32, follow_settings=False)[0]
    ours = bundle.generate_ids(rows, max_new_tokens=32)[0]
    assert ours == [token for token in answer.tolist() if token not in bundle.eos_ids]
    assert ours != plain
    assert set(bundle.settings.followed) == set(SETTINGS) - set(NOT_FOLLOWED)


@pytest.mark.slow
def test_settings_that_are_not_followed_are_said_and_recorded(followed: tuple[Any, Any]) -> None:
    _, result = followed
    said = "does not follow these of the model's generation settings: num_beams 4, stop_strings"
    assert [said in note for note in result.notes] == [True]
    content = manifest.read(result.path) or {}
    assert content["notes"] == list(result.notes)


@pytest.mark.slow
def test_genai_config_says_what_the_model_says(followed: tuple[Any, Any]) -> None:
    _, result = followed
    search = json.loads((result.path / "fp32" / "genai_config.json").read_text())["search"]
    assert search["repetition_penalty"] == 1.5
    assert search["no_repeat_ngram_size"] == 3


@pytest.mark.slow
def test_onnxruntime_genai_follows_what_its_config_says(followed: tuple[Any, Any]) -> None:
    import onnxruntime_genai as og

    _, result = followed
    bundle = Bundle.open(result.path, threads=1)
    bundle.settings = Settings({"repetition_penalty": 1.5, "no_repeat_ngram_size": 3})
    row = bundle.tokenizer.encode(PROMPT)
    model = og.Model(str(result.path / "fp32"))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(row) + 32, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(row)
    theirs: list[int] = []
    while not generator.is_done():
        generator.generate_next_token()
        theirs.append(int(generator.get_next_tokens()[0]))
    ours = bundle.generate_ids([row], max_new_tokens=32)[0]
    assert theirs[: len(ours)] == ours
    assert ours


def test_what_genai_refuses_on_other_devices_is_left_out_there(tmp_path: Path) -> None:
    client, folder = tmp_path / "client", tmp_path / "variant"
    client.mkdir()
    folder.mkdir()
    settings = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 3}
    (client / "generation_config.json").write_text(json.dumps(settings))
    (folder / "genai_config.json").write_text(json.dumps({"search": {"no_repeat_ngram_size": 0}}))
    complete(folder, client, on_cpu=False)
    search = json.loads((folder / "genai_config.json").read_text())["search"]
    assert search == {"no_repeat_ngram_size": 0, "repetition_penalty": 1.5}


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "length"), [({"max_length": 30}, 6), ({}, 32)], ids=str)
def test_an_answer_ends_where_the_settings_end_it(
    followed: tuple[Any, Any], settings: dict[str, int], length: int
) -> None:
    _, result = followed
    bundle = Bundle.open(result.path, threads=1)
    bundle.max_length = settings.get("max_length", bundle.context_length)
    bundle.max_new_tokens = None if settings else 32
    assert len(bundle.generate_ids([[5] * 24], ignore_eos=True)[0]) == length
    if settings:
        with pytest.raises(DataError, match=r"end prompt and answer at 30 \(max_length\)"):
            bundle.generate_ids([[5] * 30])
