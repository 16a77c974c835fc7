"""Exporters: which one is chosen and why, and that each row of a batch is the row alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from risen_export.backends import choosing, concatenating, offers, rounding
from risen_export.backends.optimum_export import OptimumExporter, as_4, save_as_4
from risen_export.backends.traced import unfit
from risen_export.runtime.growing import GrowingCache
from risen_export.runtime.session import KeyValueCache, open_session
from risen_plugin import hookimpl, use
from risen_plugin.errors import ConfigError, ExportError, PluginError
from risen_plugin.plugins import Plugins
from risen_plugin.testing import check_exporter, check_light_import
from tests.export import architectures as known

GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
LLAMA = known.config_of(known.BY_NAME["llama"]).to_dict()
FP32 = [("cpu", "fp32")]
STEPS = 16
ROW_TOLERANCE = 1e-4
"""Largest logit difference of a row in a batch to the row alone."""


class Kept:
    """An exporter of somebody else, which writes what it was asked for into its graph."""

    def __init__(self, most: int = 2) -> None:
        self.most = most

    def refuses(self, config: Mapping[str, Any], target: str, precision: str) -> str | None:
        layers = config.get("num_hidden_layers") or 0
        return f"it builds {self.most} layers at most" if layers > self.most else None

    def __call__(
        self, *, model: str, out: str, target: str, precision: str, **context: Any
    ) -> None:
        for name in ("model.onnx", "model.onnx.data"):
            Path(out, name).write_text(f"{model} {target} {precision}")


# Choosing


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """The exporters that come along, and one of somebody else."""
    for variable in ("DISABLED", "STRICT", "TRACE"):
        monkeypatch.delenv(f"RISEN_{variable}_PLUGINS", raising=False)
    plugins = Plugins()
    theirs = SimpleNamespace(
        risen_register_exporters=hookimpl(specname="risen_register_exporters")(
            lambda register: register("kept", Kept)
        )
    )
    assert plugins.register(theirs, "theirs", "risen-theirs", "1.0")
    return plugins


def test_the_model_builder_is_chosen_where_it_builds_the_model(plugins: Plugins) -> None:
    chosen = choosing.choose(LLAMA, FP32, plugins=plugins)
    assert chosen.line == "backend genai: the default"


def test_the_next_exporter_is_chosen_where_the_builder_refuses_and_it_says_why(
    plugins: Plugins,
) -> None:
    chosen = choosing.choose(GPT2, FP32, plugins=plugins)
    assert chosen.name == "transformers"
    assert "not genai, since" in chosen.reason
    assert chosen.reason.count("\n") == 0


def test_what_nobody_builds_is_refused_with_the_reason_of_each(plugins: Plugins) -> None:
    config = {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}
    with pytest.raises(ExportError, match=r"MambaForCausalLM.*genai: .*transformers: .*state"):
        choosing.choose(config, FP32, plugins=plugins)


def test_an_exporter_of_somebody_else_is_used_where_it_is_named_and_only_there(
    plugins: Plugins, tmp_path: Path
) -> None:
    assert choosing.choose(LLAMA, FP32, plugins=plugins).name == "genai"
    named = choosing.choose(LLAMA, FP32, "kept", plugins)
    assert (named.name, named.origin) == ("kept", "risen-theirs 1.0")
    named.build(tmp_path / "m", tmp_path / "out", "cpu", "fp32", scratch=tmp_path / "scratch")
    assert (tmp_path / "out" / "model.onnx").read_text() == f"{tmp_path / 'm'} cpu fp32"


def test_an_exporter_is_named_by_the_place_of_its_code_and_takes_options(
    plugins: Plugins,
) -> None:
    place = f"{__file__}:Kept"
    deep = {**LLAMA, "num_hidden_layers": 4}
    with pytest.raises(ExportError, match="cannot build this model: it builds 2 layers at most"):
        choosing.choose(deep, FP32, place, plugins)
    assert choosing.choose(deep, FP32, use(place, most=9), plugins).name == "Kept"


def test_a_misspelt_exporter_gets_its_near_miss(plugins: Plugins) -> None:
    with pytest.raises(ConfigError, match="did you mean 'transformers'"):
        choosing.choose(LLAMA, FP32, "transformer", plugins)


def test_what_is_no_exporter_is_told_so(plugins: Plugins) -> None:
    def nearly(*, model: str, out: str, target: str, precision: str) -> None: ...

    with pytest.raises(ConfigError, match="has no method 'refuses'"):
        choosing.choose(LLAMA, FP32, nearly, plugins)  # type: ignore[arg-type]


def test_an_exporter_that_fails_is_named(plugins: Plugins, tmp_path: Path) -> None:
    class Failing(Kept):
        def refuses(self, config: Mapping[str, Any], target: str, precision: str) -> str | None:
            return None if target == "cpu" else str(config["missing"])

        def __call__(self, **context: Any) -> None:
            if "fp32" in context.values():
                raise ValueError("no such operator")

    failing = choosing.choose(LLAMA, FP32, Failing(), plugins)
    where = (tmp_path, tmp_path / "out", "cpu")
    with pytest.raises(ExportError, match=r"exporter 'Failing' .*: no such operator"):
        failing.build(*where, "fp32", scratch=tmp_path)
    with pytest.raises(ExportError, match=r"exporter 'Failing' .*wrote no model.onnx"):
        failing.build(*where, "int8", scratch=tmp_path)
    with pytest.raises(PluginError, match="exporter 'Failing'"):
        failing.refuses(LLAMA, "cuda", "fp32")


@pytest.mark.parametrize("name", offers.OFFERED)
def test_the_exporters_that_come_along_keep_the_contract(name: str) -> None:
    check_exporter(offers.OFFERED[name]())


def test_offering_the_exporters_is_quick() -> None:
    check_light_import("risen_export.backends.offers")
    check_light_import("risen_export.backends.choosing")


# What cannot be traced


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("llama", None),
        ("gemma3", None),
        ("bloom", None),
        ("phi3-longrope", "longrope"),
        ("lfm2", "'conv'"),
        ("granite4-mamba", "'linear_attention'"),
        ("qwen3_5", "'linear_attention'"),
    ],
)
def test_what_a_trace_cannot_hold_is_refused_by_the_configuration_alone(
    name: str, why: str | None
) -> None:
    reason = unfit(known.config_of(known.BY_NAME[name]).to_dict())
    assert (reason is None) if why is None else (reason is not None and why in reason)


# What transformers 4 reads


def test_the_rotary_base_is_where_transformers_4_looks_for_it() -> None:
    rope = {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.25}
    told = as_4({"model_type": "gpt_neox", "dtype": "bfloat16", "rope_parameters": rope})
    assert (told["rope_theta"], told["rotary_emb_base"]) == (5e5, 5e5)
    assert (told["partial_rotary_factor"], told["rotary_pct"]) == (0.25, 0.25)
    assert told["rope_scaling"] is None
    assert "rope_parameters" not in told
    assert told["torch_dtype"] == "float32"


def test_a_scaled_rotary_table_keeps_its_scaling_in_transformers_4() -> None:
    told = as_4({"rope_parameters": known.LLAMA3_ROPE})
    assert told["rope_scaling"] == {k: v for k, v in known.LLAMA3_ROPE.items() if k != "rope_theta"}


def test_both_rotary_tables_of_gemma_3_reach_transformers_4() -> None:
    told = as_4({"model_type": "gemma3_text", "rope_parameters": known.BY_LAYER_ROPE})
    assert (told["rope_theta"], told["rope_local_base_freq"]) == (1e6, 1e4)


def test_the_model_that_optimum_reads_has_weights_by_links_and_no_tokenizer(
    tmp_path: Path,
) -> None:
    (tmp_path / "model").mkdir()
    for name, text in (("config.json", "{}"), ("tokenizer_config.json", "{}")):
        (tmp_path / "model" / name).write_text(text)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    save_as_4(tmp_path / "model", tmp_path / "old")
    assert {file.name for file in (tmp_path / "old").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    assert (tmp_path / "old" / "model.safetensors").is_symlink()


@pytest.mark.parametrize(
    ("python", "why"),
    [("", "RISEN_OPTIMUM_PYTHON names no interpreter"), ("/no/python", "no interpreter /no/pyth")],
)
def test_optimum_says_where_its_environment_is_looked_for(
    python: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISEN_OPTIMUM_PYTHON", python)
    reason = OptimumExporter().refuses(GPT2, "cpu", "fp32")
    assert reason is not None
    assert why in reason


def test_what_optimum_says_last_is_the_reason(tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\necho first >&2\necho 'KeyError: no such model' >&2\nexit 1\n")
    stand_in.chmod(0o755)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    chosen = choosing.choose(GPT2, FP32, OptimumExporter(str(stand_in)), Plugins())
    with pytest.raises(ExportError, match="optimum-onnx failed: KeyError: no such model"):
        chosen.build(model, tmp_path / "out", "cpu", "fp32", scratch=tmp_path / "scratch")


# Batches of unequal length


Built = Callable[[str, str], tuple[Path, Any]]
Of = Callable[[str], Built]
NEEDS_OPTIMUM = "RISEN_OPTIMUM_PYTHON is unset; tox -e optimum sets it"


@pytest.fixture(scope="session")
def built_by(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Of:
    """``built_by(exporter)(architecture, precision)``: the folder of a graph, and its model.

    Each architecture is traced once, as in an export of several precisions.
    """
    done: dict[tuple[str, str], tuple[Path, Any]] = {}

    def of(backend: str) -> Built:
        if backend == "transformers":
            pytest.importorskip("onnxscript", reason="transformers' exporter needs onnxscript")
        if backend == "optimum" and not os.environ.get("RISEN_OPTIMUM_PYTHON"):
            pytest.skip(NEEDS_OPTIMUM)
        exporter = offers.OFFERED[backend]()

        def build(name: str, precision: str) -> tuple[Path, Any]:
            if (backend, name) not in done:
                model = known.model_of(known.BY_NAME[name]).float()
                done[backend, name] = (tmp_path_factory.mktemp(name), model)
                model.config.architectures = [type(model).__name__]
                model.save_pretrained(done[backend, name][0] / "model")
                tokenizer.save_pretrained(done[backend, name][0] / "model")
            folder, model = done[backend, name]
            out = folder / precision
            if not out.exists():
                out.mkdir()
                exporter(
                    model=str(folder / "model"),
                    out=str(out),
                    target="cpu",
                    precision=precision,
                    scratch=str(folder / "scratch"),
                )
            return out, model

        return build

    return of


@pytest.fixture
def traced(built_by: Of) -> Built:
    return built_by("transformers")


def cache_of(folder: Path, rows: int) -> Any:
    """The state of a batch as a bundle of this graph has it."""
    session = open_session(folder / "model.onnx", 1)
    search = json.loads((folder / "genai_config.json").read_text())["search"]
    if search["past_present_share_buffer"]:
        return KeyValueCache(session, rows, 99)
    return GrowingCache(session, rows, 99)


def answers(cache: Any, ids: Any, lengths: Any, steps: int) -> tuple[list[Any], list[list[int]]]:
    """The logits of every step, and the greedy tokens of each row."""
    logits = cache.prefill(ids, lengths)[np.arange(len(ids)), lengths - 1]
    seen, tokens = [logits], [[] for _ in ids]
    for _ in range(steps):
        chosen = logits.argmax(-1)
        for row, token in zip(tokens, chosen, strict=True):
            row.append(int(token))
        logits = cache.step(chosen)
        seen.append(logits)
    return seen, tokens


def padded(rows: list[list[int]]) -> tuple[Any, Any]:
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
    return ids, lengths


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("genai", "mistral"),
        ("transformers", "gpt2"),
        ("transformers", "cohere2"),
        ("optimum", "gpt2"),
        ("optimum", "llama-rope-llama3"),
    ],
)
def test_a_row_beside_longer_and_shorter_ones_is_the_row_alone_and_the_model(
    built_by: Of, backend: str, name: str
) -> None:
    import torch

    folder, model = built_by(backend)(name, "fp32")
    rows = known.rows()
    together, tokens = answers(cache_of(folder, len(rows)), *padded(rows), STEPS)
    for line, row in enumerate(rows):
        alone, same = answers(cache_of(folder, 1), *padded([row]), STEPS)
        assert tokens[line] == same[0]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[line], other[0], atol=ROW_TOLERANCE)
        with torch.no_grad():
            whole = model(input_ids=torch.tensor([row + tokens[line]])).logits[0].numpy()
        for step, one in enumerate(together):
            np.testing.assert_allclose(one[line], whole[len(row) - 1 + step], atol=ROW_TOLERANCE)


@pytest.mark.slow
def test_padding_on_the_other_side_would_be_seen(traced: Built) -> None:
    """A graph with a window counts a hole behind a short prompt as tokens: so the test is one."""
    folder, _ = traced("cohere2", "fp32")
    rows = known.rows()
    ids, lengths = padded(rows)
    right, alone = cache_of(folder, len(rows)), cache_of(folder, 1)
    right._mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
    first = right._run(ids, np.broadcast_to(np.arange(ids.shape[1]), ids.shape))
    tokens = first[np.arange(len(rows)), lengths - 1].argmax(-1)
    shortest = int(lengths.argmin())
    alone.prefill(*padded([rows[shortest]]))
    difference = right.step(tokens)[shortest] - alone.step(tokens[[shortest]])[0]
    assert np.abs(difference).max() > 100 * ROW_TOLERANCE


@pytest.mark.slow
def test_rows_that_leave_a_batch_take_nothing_with_them(traced: Built) -> None:
    session = open_session(traced("cohere2", "fp32")[0] / "model.onnx", 1)
    rows = known.rows()
    cache = GrowingCache(session, len(rows), 99)
    ids, lengths = padded(rows)
    tokens = cache.prefill(ids, lengths)[np.arange(len(rows)), lengths - 1].argmax(-1)
    cache.select([3, 2])  # the longest are gone, and with them columns that nobody needs
    after = cache.step(tokens[[3, 2]])
    for line, index in enumerate([3, 2]):
        alone = GrowingCache(session, 1, 99)
        alone.prefill(*padded([rows[index]]))
        np.testing.assert_allclose(after[line], alone.step(tokens[[index]])[0], atol=ROW_TOLERANCE)


@pytest.mark.slow
def test_the_logits_of_a_short_prompt_stand_where_its_tokens_stand(traced: Built) -> None:
    import torch

    folder, model = traced("gpt2", "fp32")
    rows = known.rows()
    logits = GrowingCache(open_session(folder / "model.onnx", 1), len(rows), 0).prefill(
        *padded(rows)
    )
    for line, row in enumerate(rows):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([row])).logits[0].numpy()
        np.testing.assert_allclose(logits[line, : len(row)], alone, atol=ROW_TOLERANCE)


@pytest.mark.slow
def test_a_graph_has_the_names_of_the_contract_and_its_weights_once(traced: Built) -> None:
    import onnx

    folder, model = traced("gpt2", "fp32")
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    cache = [f"{n}.{part}" for n in range(2) for part in ("key", "value")]
    assert {value.name for value in graph.input} == {
        "input_ids",
        "attention_mask",
        "position_ids",
        *(f"past_key_values.{name}" for name in cache),
    }
    assert [value.name for value in graph.output] == ["logits", *(f"present.{n}" for n in cache)]
    unique = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert (folder / "model.onnx.data").stat().st_size <= unique
    settings = json.loads((folder / "genai_config.json").read_text())
    assert settings["search"]["past_present_share_buffer"] is False
    assert settings["model"]["context_length"] == known.CONTEXT
    assert str(Path(__file__).parents[2]) not in (folder / "model.onnx").read_bytes().decode(
        "latin-1"
    )


@pytest.mark.slow
def test_int8_rounds_every_matrix_of_the_graph(traced: Built) -> None:
    import onnx
    import torch

    folder, model = traced("gpt2", "int8")
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    rounded = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(rounded) == 2 * 9  # halves of four in each of two blocks, and of the output layer
    rows = known.rows()
    logits = GrowingCache(open_session(folder / "model.onnx", 1), 1, 0).prefill(*padded(rows[:1]))
    with torch.no_grad():
        exact = model(input_ids=torch.tensor(rows[:1])).logits[0].numpy()
    difference = np.abs(logits[0] - exact).max()
    assert 1e-4 < difference < 0.5


def test_a_value_that_nobody_feeds_is_refused() -> None:
    ir = pytest.importorskip("onnx_ir", reason="onnx-ir is of the cpu extra")
    state = ir.Value(name="past_conv.0", shape=ir.Shape(["b", 4]))
    graph = ir.Graph([state], [], nodes=[])
    with pytest.raises(ExportError, match=r"'past_conv\.0', which a bundle does not feed"):
        concatenating.name_values(graph)


def test_the_precisions_that_a_finished_graph_is_rounded_to_begin_with_none() -> None:
    assert rounding.PRECISIONS[0] == "fp32"
