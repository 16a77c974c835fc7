"""The gate measures what a graph would say next, and lets no damaged one through."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risen_export import Bundle, GateSettings, export
from risen_export.bundles import manifest, publish
from risen_export.bundles.variants import PRECISIONS, Variant
from risen_export.gate import reference as files
from risen_export.gate.asking_graph import Heard, measure
from risen_export.gate.limits import DEFAULTS, Limits, advice, judge, read_limits
from risen_export.gate.measured import Measured
from risen_export.gate.measures import (
    KEPT,
    Likeliest,
    divergence,
    likeliest,
    log_softmax,
    token_losses,
)
from risen_export.gate.probe import context_of, long_rows, turning_points
from risen_export.gate.verifying import verify_bundle
from risen_plugin.errors import ConfigError, ExportError


def read(bundle: Path) -> dict[str, Any]:
    content = manifest.read(bundle)
    assert content is not None
    return content


GOOD = Measured(
    positions=1000,
    answered=300,
    agreement=1.0,
    kl_mean=0.0,
    kl_p99=0.0,
    perplexity=8.0,
    perplexity_reference=8.0,
    greedy_equal=300,
    logit_spread=3.0,
    logit_diff=1e-5,
)


def logits_of(seed: int, positions: int = 5, vocabulary: int = 200) -> Any:
    return np.random.default_rng(seed).normal(0, 3, (positions, vocabulary)).astype(np.float32)


# What is measured


@given(st.integers(0, 2**32 - 1), st.floats(0, 3))
@settings(max_examples=40, deadline=None)
def test_the_divergence_is_at_most_that_of_the_whole_vocabulary(seed: int, noise: float) -> None:
    theirs, ours = logits_of(seed), logits_of(seed) + noise * logits_of(seed + 1)
    p, q = log_softmax(theirs), log_softmax(ours)
    whole = (np.exp(p) * (p - q)).sum(axis=-1)
    found = divergence(likeliest(theirs), ours)
    assert (found <= whole + 1e-6).all()
    assert (found >= 0).all()
    every = divergence(likeliest(theirs, kept=200), ours)
    assert every == pytest.approx(whole, abs=1e-5)


def test_a_model_diverges_from_itself_by_nothing() -> None:
    logits = logits_of(3)
    assert divergence(likeliest(logits), logits).max() < 1e-7
    assert np.isnan(divergence(likeliest(logits), logits * np.float32("nan"))).all()


def test_the_likeliest_tokens_come_from_the_likeliest_down_and_the_lower_id_first() -> None:
    kept = likeliest(np.array([[1.0, 3.0, 3.0, 2.0]], dtype=np.float32), kept=3)
    assert kept.ids.tolist() == [[1, 2, 3]]
    assert kept.first.tolist() == [1]
    assert likeliest(logits_of(1)).ids.shape == (5, KEPT)


def test_the_loss_of_a_token_is_that_of_torch() -> None:
    import torch

    logits, ids = logits_of(5), np.array([3, 7, 199, 0, 3])
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits[:-1]), torch.from_numpy(ids[1:]), reduction="none"
    )
    assert token_losses(logits, ids) == pytest.approx(expected.numpy(), abs=1e-5)


# What is let through


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("fp32", {}, None),
        ("fp32", {"logit_diff": 0.01}, "logits differ by 0.00333 of their spread, more than 0.001"),
        ("fp32", {"logit_diff": 0.05, "logit_spread": 80.0}, None),
        ("fp32", {"logit_diff": 1e-5, "logit_spread": 1e-4}, "logits differ by 0.1 of"),
        ("fp32", {"agreement": 0.99}, "99.0% of the tokens agree, fewer than 100.0%"),
        ("int8", {"logit_diff": 2.0}, None),
        ("int8", {"kl_mean": 0.5}, "the mean divergence is 0.5"),
        ("int8", {"kl_mean": float("nan")}, "the mean divergence is nan"),
        ("int8", {"kl_p99": 2.0}, "the 99th percentile of the divergence is 2"),
        ("int8", {"perplexity": 16.0}, "perplexity is 2 times the model's"),
        ("int8", {"perplexity": float("inf")}, "perplexity is inf times the model's"),
        ("int8", {"not_finite": True}, "it computes NaN or infinity"),
        ("int8", {"odd_files": ["its eos is odd"]}, "its eos is odd"),
        (
            "int8",
            {"golden_lost": [("Capital of France?", "L'Étoile"), ("2+2?", "5")]},
            "'Capital of France?' is answered \"L'Étoile\", and 1 more wrongly",
        ),
        (
            "int4",
            {
                "adherence": 0.5,
                "adherence_reference": 0.6,
                "instructions": 100,
                "adherence_lost": 12,
                "adherence_gained": 2,
            },
            "strict adherence falls by 0.1, more than 0.02",
        ),
        ("int4", {"adherence": 0.6, "adherence_reference": 0.6}, None),
    ],
)
def test_a_limit_that_is_not_kept_is_said(
    family: Any, changes: dict[str, Any], said: str | None
) -> None:
    failures = judge(replace(GOOD, **changes), DEFAULTS[family])
    assert (said is None) == (not failures)
    if said is not None:
        assert said in "; ".join(one.reason for one in failures)


def test_a_measure_without_a_limit_is_not_judged() -> None:
    free = Limits(None, None, None, None, None, None, None)
    assert judge(replace(GOOD, kl_mean=9.0, agreement=0.1, golden_lost=[("a", "b")]), free) == []


def test_limits_are_read_over_the_defaults() -> None:
    limits = read_limits({"int8": {"kl_mean": 0.5, "golden": None}})
    assert limits["int8"] == replace(DEFAULTS["int8"], kl_mean=0.5, golden=None)
    assert limits["int4"] == DEFAULTS["int4"]


@pytest.mark.parametrize(
    ("given_limits", "said"),
    [
        ({"int9": {}}, "unknown family 'int9'; did you mean 'int8'?"),
        ({"int8": {"kl_men": 1}}, "unknown limit 'kl_men'; did you mean 'kl_mean'?"),
        ({"int8": {"kl_mean": "low"}}, "limits.int8.kl_mean is 'low', not a number"),
        ({"int8": {"kl_mean": -1}}, "limits.int8.kl_mean is -1, not a number"),
        ({"int8": 3}, "limits.int8 is not a mapping"),
    ],
)
def test_an_odd_limit_is_named(given_limits: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_limits(given_limits)
    assert said in str(refused.value)


def test_what_was_measured_survives_json() -> None:
    odd = replace(GOOD, kl_mean=float("nan"), golden_lost=(("a", "b"),))
    again = Measured.from_json(json.loads(json.dumps(odd.as_json())))
    assert np.isnan(again.kl_mean)
    assert replace(again, kl_mean=0.0) == replace(odd, kl_mean=0.0)


# Where the arithmetic changes


@pytest.mark.parametrize(
    ("config", "points"),
    [
        ({"max_position_embeddings": 512}, {}),
        ({"sliding_window": 64}, {"sliding window": 64}),
        ({"sliding_window": None}, {}),
        (
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "original_max_position_embeddings": 128,
                }
            },
            {"rope switch": 128},
        ),
        (
            {"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 4096},
            {"rope switch": 4096},
        ),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "default"},
                    "sliding_attention": {"rope_type": "dynamic", "factor": 2.0},
                },
                "max_position_embeddings": 96,
            },
            {"rope switch": 96},
        ),
    ],
)
def test_the_lengths_at_which_a_model_changes_are_known(
    config: dict[str, Any], points: dict[str, int]
) -> None:
    assert turning_points(config) == points


def test_long_rows_reach_past_every_such_length_within_the_context() -> None:
    rows = long_rows({"sliding_window": 64}, vocabulary=50, context=512)
    assert [len(row) for row in rows] == [80]
    assert max(rows[0]) < 50
    assert long_rows({"sliding_window": 512}, vocabulary=50, context=512) == []
    assert context_of({"seq_length": 12}) == 12
    assert context_of({}) is None


# Planted damage


def change_tensors(
    folder: Path, chosen: Callable[[str], bool], change: Callable[[Any], Any]
) -> int:
    """Change the values of the graph's tensors where they lie; how many were changed."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo

    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    changed = 0
    for tensor in graph.graph.initializer:
        if not chosen(tensor.name) or tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = ExternalDataInfo(tensor)
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        file = np.memmap(
            folder / place.location, kind, "r+", offset=place.offset or 0, shape=tuple(tensor.dims)
        )
        file[:] = change(np.array(file))
        file.flush()
        changed += 1
    return changed


def flip_a_block(folder: Path) -> None:
    """Turn the bits of a block of weights, as a bad disk does."""

    def flipped(values: Any) -> Any:
        flat = values.reshape(-1).view(np.uint8)
        flat[: min(2048, flat.size // 2)] ^= 0xFF
        return values

    assert change_tensors(folder, lambda name: "down_proj" in name or "gate_proj" in name, flipped)


def change_json(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def another_template(folder: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    change_json(folder, "tokenizer_config.json", chat_template=template)


def another_end(folder: Path) -> None:
    change_json(folder, "generation_config.json", eos_token_id=5)


def another_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    path.write_text(json.dumps(content))


def another_context(folder: Path) -> None:
    genai = json.loads((folder / "genai_config.json").read_text())
    genai["model"]["context_length"] = 64
    change_json(folder, "genai_config.json", model=genai["model"])


def another_rope(folder: Path) -> None:
    """Stretch the rotary tables, as a wrong base or factor does."""

    def stretched(values: Any) -> Any:
        return values[np.arange(len(values)) // 2]

    tables = ("cos_cache", "sin_cache")
    assert change_tensors(folder, lambda name: name in tables, stretched) == 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_block, ""),
        (another_rope, ""),
        (another_template, "its tokenizer or chat template makes other tokens than the model's"),
        (another_tokenizer, "its tokenizer or chat template makes other tokens than the model's"),
        (another_end, "its answers end at [5], the model's at"),
        (another_context, "its context is 64 tokens, the model's 256"),
    ],
)
def test_a_damaged_graph_is_not_published(
    damage: Callable[[Path], None],
    said: str,
    precision: str,
    tied_model: Any,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = publish.complete

    def damaged(folder: Path, *arguments: Any, **options: Any) -> None:
        honest(folder, *arguments, **options)
        if folder.name == precision:
            damage(folder)

    monkeypatch.setattr(publish, "complete", damaged)
    with pytest.raises(ExportError) as refused:
        export(
            "mine",
            tmp_path / "out",
            [precision],
            model=tied_model,
            tokenizer=tokenizer,
            progress=False,
        )
    assert str(refused.value).startswith(f"the {precision} graph was not published, it is ")
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_was_saved_without_its_adapter_is_not_published(
    adapter: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    from risen_export.merging import saving

    source = adapter(tmp_path)
    honest = saving.save

    def lossy(merged: Any, folder: Path, **options: Any) -> None:
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        honest(replace(merged, model=base), folder, **options)

    monkeypatch.setattr(saving, "save", lossy)
    with pytest.raises(ExportError, match="saved for the export is not the merged one"):
        export(source, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_fails_is_published_by_force_and_marked(
    tied_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    strict = GateSettings(limits={"int8": {"kl_mean": 0.0}})
    options: dict[str, Any] = {"model": tied_model, "tokenizer": tokenizer, "progress": False}
    with pytest.raises(ExportError, match=r"try --precision int8-fine, or --precision auto"):
        export("mine", tmp_path / "out", ["int8"], gate=strict, **options)
    result = export("mine", tmp_path / "out", ["int8"], gate=strict, force=True, **options)
    assert "the mean divergence is" in result.precisions["int8"].failures[0]
    content = read(tmp_path / "out")
    assert content["variants"]["int8"]["gate"]["passed"] is False
    with pytest.raises(ExportError, match="exists and is left as it is"):
        export("mine", tmp_path / "out", ["int8"], **options)
    export("mine", tmp_path / "out", ["int8"], replace=True, **options)
    content = read(tmp_path / "out")
    assert content["variants"]["int8"]["gate"]["passed"] is True


# The smallest that passes


@pytest.mark.slow
def test_auto_keeps_the_smallest_that_passes_and_says_why_not_a_smaller_one(
    tied_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    result = export(
        "mine",
        tmp_path / "out",
        ["auto"],
        gate=GateSettings(limits={"int4": {"kl_mean": 0.0}}),
        model=tied_model,
        tokenizer=tokenizer,
        progress=False,
    )
    assert list(result.precisions) == ["int8-fast"]
    assert list(result.tried) == [
        "int4-128",
        "int4-fast",
        "int4",
        "int4-kquant",
        "int4-mixed",
        "int4-kquant-mixed",
    ]
    assert all("the mean divergence is" in reason for reason in result.tried.values())
    assert sorted(path.name for path in result.path.iterdir() if path.is_dir()) == [
        "gate",
        "int8-fast",
    ]


# Targets


@pytest.mark.slow
def test_graphs_for_cuda_are_built_here_and_run_as_far_as_a_cpu_can(
    tied_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    result = export(
        "mine",
        tmp_path / "out",
        ["fp16,bf16,int4"],
        targets=["cuda"],
        gate=GateSettings(
            limits={"int4": {"kl_mean": 9.0, "kl_p99": 9.0, "perplexity": 9.0, "agreement": 0.1}}
        ),
        model=tied_model,
        tokenizer=tokenizer,
        progress=False,
    )
    assert list(result.precisions) == ["cuda-fp16", "cuda-bf16", "cuda-int4"]
    fp16 = result.precisions["cuda-fp16"].measured
    assert fp16 is not None
    assert fp16.kl_mean < 1e-4
    assert result.precisions["cuda-int4"].measured is not None
    assert result.precisions["cuda-bf16"].measured is None
    content = read(tmp_path / "out")
    assert content["variants"]["cuda-bf16"]["ran"] == "built, not run"
    assert any(
        one.startswith("cuda-fp16, cuda-bf16, cuda-int4: built and not run") for one in result.notes
    )
    assert "matrices_fp16" in result.precisions["cuda-fp16"].bytes_by_kind
    assert result.precisions["cuda-int4"].bytes_by_kind["int4_weights"] > 0
    assert content["variants"]["cuda-fp16"]["ran"].startswith("built, not run")
    with pytest.raises(ExportError, match="runs on cuda, and the installed onnxruntime has no"):
        Bundle.open(tmp_path / "out", "cuda-fp16")
    found = verify_bundle(tmp_path / "out")
    assert found["cuda-fp16"].failures == ()
    assert "no CUDAExecutionProvider" in found["cuda-bf16"].remark


# Verifying again


@pytest.mark.slow
def test_a_bundle_is_measured_again_without_its_model(tied_bundle: Path) -> None:
    found = verify_bundle(tied_bundle)
    assert list(found) == ["fp32", "int8"]
    written = read(tied_bundle)["variants"]
    for name, one in found.items():
        assert one.failures == ()
        assert one.remark == ""
        assert one.measured is not None
        assert one.measured.kl_mean == pytest.approx(
            written[name]["gate"]["measured"]["kl_mean"], abs=1e-6
        )


@pytest.mark.slow
def test_weights_that_changed_with_their_hash_still_fail(tied_bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(tied_bundle, copy)
    flip_a_block(copy / "int8")
    with pytest.raises(ExportError, match="is not what was exported: its content was changed"):
        verify_bundle(copy)
    inner = {}
    for name in ("fp32", "int8"):
        content = json.loads((copy / name / "manifest.json").read_text())
        inner[name] = publish.describe(
            copy / name, name, {}, ran=content["ran"], gate=content["gate"]
        )
    publish.span(copy, inner, {})
    found = verify_bundle(copy)
    assert found["fp32"].failures == ()
    assert found["int8"].failures


def test_advice_names_the_next_larger_precision() -> None:
    assert "int4-fast" in advice(Variant("cpu", PRECISIONS["int4-128"]))
    assert "int4," in advice(Variant("cuda", PRECISIONS["int4-128"]))
    assert "int8-fine" in advice(Variant("cpu", PRECISIONS["int8"]))
    assert advice(Variant("cpu", PRECISIONS["fp32"])) == ""


def test_a_likeliest_has_the_length_of_its_positions() -> None:
    assert len(Likeliest(np.zeros((4, 2), np.int32), np.zeros((4, 2), np.float32))) == 4


@pytest.mark.slow
def test_what_was_heard_of_the_exact_graph_is_what_it_says(tied_bundle: Path) -> None:
    bundle = Bundle.open(tied_bundle, "fp32")
    reference = files.load(tied_bundle / files.FOLDER)
    heard = measure(Heard.of(bundle, reference.rows), reference)
    assert heard == measure(bundle, reference)
    assert heard.greedy_equal == sum(len(row.answer) for row in reference.rows)


@pytest.mark.slow
def test_a_large_model_reads_a_few_rows_and_its_exact_graph_the_others(
    tied_model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from risen_export.gate import asking_model

    read: list[int] = []
    honest = asking_model.logits_of

    def counted(model: Any, ids: Any) -> Any:
        read.append(len(ids))
        return honest(model, ids)

    monkeypatch.setattr(asking_model, "logits_of", counted)
    monkeypatch.setattr("risen_export.job.LARGE", 1000)
    options: dict[str, Any] = {"model": tied_model, "tokenizer": tokenizer, "progress": False}
    result = export("mine", tmp_path / "out", ["fp32", "int8"], **options)
    marks = 2  # rows that the saved model is known again by
    assert len(read) == 2 + marks
    assert result.precisions["int8"].measured is not None
    assert result.precisions["int8"].measured.answered == 16 * 24
    alone = export("mine", tmp_path / "alone", **options).precisions["fp32"].measured
    assert alone is not None
    assert alone.answered == alone.greedy_equal == 2 * 8
    assert verify_bundle(tmp_path / "out")["fp32"].failures == ()
    assert alone.perplexity is alone.perplexity_ratio is None  # no text was read
    assert Measured.from_json(alone.as_json()) == alone
    assert "perplexity" not in (tmp_path / "alone" / "README.md").read_text()
    assert verify_bundle(tmp_path / "alone")["fp32"].failures == ()


@pytest.mark.slow
def test_measuring_again_loads_no_torch_and_no_transformers(tied_bundle: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from risen_export.gate.verifying import "
        "verify_bundle; print(verify_bundle(Path(sys.argv[1]))['int8'].failures); "
        "print(sorted({'torch', 'transformers', 'onnx', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tied_bundle)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["()", "[]"]
