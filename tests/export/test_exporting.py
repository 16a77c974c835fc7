"""The bundle is the model: its logits, its greedy tokens, its size, its files, its clients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from risen_export import Bundle, bytes_by_kind, check, export
from risen_export.bundles import manifest as manifests
from risen_export.gate.probe import ANSWER_TOKENS
from risen_export.verify import reference, verify
from risen_plugin.errors import ExportError

pytestmark = pytest.mark.slow
FP32_TOLERANCE = 1e-3
INT8_TOLERANCE = 0.5
PROMPT = [{"role": "user", "content": "Who ordered 12 lamps, née Ünal?"}]


def manifest(folder: Path) -> dict[str, Any]:
    content = manifests.read(folder)
    assert content is not None
    return content


def test_fp32_is_the_model_and_int8_is_close(tied_bundle: Path) -> None:
    fp32 = manifest(tied_bundle / "fp32")["gate"]["measured"]
    assert fp32["logit_diff"] <= FP32_TOLERANCE
    assert fp32["greedy_equal"] == fp32["answered"] == 16 * ANSWER_TOKENS
    int8 = manifest(tied_bundle / "int8")["gate"]["measured"]
    assert FP32_TOLERANCE < int8["logit_diff"] <= INT8_TOLERANCE
    assert int8["agreement"] > 0.9


def test_the_check_sees_another_model(
    tied_bundle: Path, model_of: Callable[..., Any], tokenizer: Any
) -> None:
    other = model_of(tokenizer)
    with torch.no_grad():
        other.model.norm.weight[0] += 0.05
    verdict = verify(tied_bundle / "fp32", other, tokenizer, tokens=8)
    assert verdict["max_logit_diff"] > FP32_TOLERANCE


def test_the_check_looks_past_end_of_text(tied_model: Any, tokenizer: Any) -> None:
    expected = reference(tied_model, tokenizer, tokens=8)
    assert [len(answer) for answer in expected.answers] == [8] * 8


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tied_weights_are_stored_once(tied_bundle: Path, tied_model: Any, precision: str) -> None:
    unique = sum(parameter.numel() for parameter in tied_model.parameters())
    weight = 4 if precision == "fp32" else 1.2  # int8: a byte, and an fp32 scale per 32 weights
    (weights,) = (tied_bundle / precision / "onnx").glob("*.onnx_data")
    graph = weights.stat().st_size
    kinds = bytes_by_kind(tied_bundle / precision)
    # The rotary table is as long as the context, which outweighs such a tiny model.
    assert graph - kinds["rotary_tables"] <= 1.1 * weight * unique
    assert kinds.get("embedding_fp32", 0) == (4 * 288 * 64 if precision == "fp32" else 0)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_kinds_of_bytes_add_up_to_the_files(tied_bundle: Path, precision: str) -> None:
    content = manifest(tied_bundle / precision)
    total = sum(entry["bytes"] for entry in content["files"].values())
    assert sum(content["bytes_by_kind"].values()) == total
    assert min(content["bytes_by_kind"].values()) >= 0


def test_an_untied_llama_with_its_own_tokenizer_class_makes_the_round_trip(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=tokenizer.chat_template,
    )
    model = model_of(plain, "Llama", tied=False, head_dim=32)
    result = export(
        "in memory",
        tmp_path / "out",
        ("fp32", "int8"),
        model=model,
        tokenizer=plain,
        progress=False,
    )
    measured = result.precisions["fp32"].measured
    assert measured is not None
    assert measured.logit_diff is not None
    assert measured.logit_diff <= FP32_TOLERANCE
    assert measured.greedy_equal == measured.answered
    assert result.precisions["int8"].bytes_by_kind["embedding_fp32"] == 4 * 288 * 64
    settings = json.loads((tmp_path / "out/fp32/tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_every_layer_of_a_mistral_keeps_its_window(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model = model_of(tokenizer, "Mistral", sliding_window=16, head_dim=16)
    result = export("mine", tmp_path / "out", model=model, tokenizer=tokenizer, progress=False)
    measured = result.precisions["fp32"].measured
    assert measured is not None
    assert measured.logit_diff is not None
    assert measured.logit_diff <= FP32_TOLERANCE  # the prompts are longer than the window
    assert measured.greedy_equal == measured.answered


def test_a_graph_that_onnxruntime_could_not_run_is_not_built(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model = model_of(tokenizer, "Phi", num_key_value_heads=4)  # rotates half of 16 dimensions
    with pytest.raises(ExportError, match=r"rotates a multiple of 16 dimensions, not 8$"):
        export(
            "mine",
            tmp_path / "out",
            backend="genai",
            model=model,
            tokenizer=tokenizer,
            progress=False,
        )
    assert list(tmp_path.iterdir()) == []


def test_what_onnxruntime_cannot_run_is_one_line(tied_bundle: Path) -> None:
    beyond_the_vocabulary = np.array([[10**6]])
    with pytest.raises(ExportError, match=r"^onnxruntime cannot run the graph: .*indices"):
        Bundle.open(tied_bundle).logits(beyond_the_vocabulary)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_an_adapter_is_exported_with_its_base_and_its_rewards(
    adapter: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = adapter(tmp_path)
    (tmp_path / "risen").mkdir()
    record = {"rewards": [{"name": "exact"}], "plugins": ["risen-plugin 0.1"], "seed": 3}
    (tmp_path / "risen" / "run.json").write_text(json.dumps(record))
    result = export(folder, tmp_path / "out", progress=False)
    written = manifest(result.path)
    assert [one["name"] for one in written["merged_adapters"]] == ["adapter"]
    assert str(tmp_path) not in (result.path / "fp32" / "manifest.json").read_text()
    assert written["rewards"] == {"plugins": record["plugins"], "rewards": record["rewards"]}
    assert written["versions"]["onnxruntime-genai"]
    measured = result.precisions["fp32"].measured
    assert measured is not None
    assert measured.logit_diff is not None
    assert measured.logit_diff <= FP32_TOLERANCE


def test_a_precision_folder_is_complete_for_transformers(tied_bundle: Path, tokenizer: Any) -> None:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    folder = tied_bundle / "fp32"
    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == ["Qwen2ForCausalLM"]
    assert (
        config.rope_parameters["rope_theta"]
        == json.loads((folder / "config.json").read_text())["rope_theta"]
    )
    assert GenerationConfig.from_pretrained(folder).eos_token_id == tokenizer.eos_token_id
    loaded = AutoTokenizer.from_pretrained(folder)
    text = loaded.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    assert text == tokenizer.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == (folder / "chat_template.jinja").read_text()


def test_the_key_value_dimension_is_a_number(tied_bundle: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(tied_bundle / "fp32" / "model.onnx")
    values = [*session.get_inputs(), *session.get_outputs()]
    caches = [value for value in values if value.name.startswith(("past", "present"))]
    assert len(caches) == 8  # 2 layers, key and value, in and out
    assert {value.shape[3] for value in caches} == {16}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnxruntime_genai_reads_the_folder_and_answers_the_same(
    tied_bundle: Path, precision: str
) -> None:
    import onnxruntime_genai as og

    ours = Bundle.open(tied_bundle, precision, threads=1)
    model = og.Model(str(tied_bundle / precision))
    ids = og.Tokenizer(model).encode(ours.tokenizer.render(PROMPT))
    assert list(ids) == ours.tokenizer.encode(PROMPT)
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(ids) + 64, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(ids)
    theirs: list[int] = []
    while not generator.is_done():
        generator.generate_next_token()
        theirs.append(int(generator.get_next_tokens()[0]))
    expected = ours.generate_ids([list(ids)], max_new_tokens=64, ignore_eos=True)[0]
    assert theirs == expected[: len(theirs)]
    assert theirs


def test_hashes_find_a_changed_file(tied_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tied_bundle, tmp_path / "copy")
    assert check(copy) == []
    data = copy / "int8" / "onnx" / "model_int8.onnx_data"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    assert check(copy) == ["int8/onnx/model_int8.onnx_data"]
    (copy / "fp32" / "manifest.json").write_text("{}")
    assert check(copy) == ["fp32/manifest.json", "int8/onnx/model_int8.onnx_data"]


def test_a_file_cut_short_is_found_when_the_bundle_is_opened(
    tied_bundle: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tied_bundle, tmp_path / "copy")
    data = copy / "fp32" / "onnx" / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ExportError, match=r"model\.onnx_data is missing or cut short"):
        Bundle.open(copy)


def test_fp32_that_differs_is_not_published(
    model_of: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Bundle.logits
    monkeypatch.setattr(
        Bundle,
        "logits",
        lambda self, ids, lengths: honest(self, ids, lengths) + np.float32(2 * FP32_TOLERANCE),
    )
    model = model_of(tokenizer)
    with pytest.raises(ExportError, match=r"not the model: logits differ by 0\.00\d+ of"):
        export("mine", tmp_path / "out", model=model, tokenizer=tokenizer, progress=False)
    assert list(tmp_path.iterdir()) == []
    result = export(
        "mine", tmp_path / "out", model=model, tokenizer=tokenizer, progress=False, check=False
    )
    assert manifest(result.path)["variants"]["fp32"]["gate"] is None


def test_logits_that_are_not_numbers_are_not_published(
    model_of: Callable[..., Any], tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Bundle.logits
    monkeypatch.setattr(Bundle, "logits", lambda self, *ids: honest(self, *ids) * np.float32("nan"))
    with pytest.raises(ExportError, match="it computes NaN or infinity"):
        export(
            "mine",
            tmp_path / "out",
            model=model_of(tokenizer),
            tokenizer=tokenizer,
            progress=False,
        )
