"""Adapters that are kept apart: what is read, where it goes, and that every client switches."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from risen_export import Bundle, adapt, check, export, remove_adapter
from risen_export.backends import branches
from risen_export.backends.branches import Product, plan
from risen_export.bundles import adapters, lora
from risen_export.bundles.sites import Part, Site, from_text, to_text
from risen_export.gate.adapters_again import failures, measure_again, remark
from risen_export.gate.verifying import verify_bundle
from risen_plugin.errors import ExportError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TOLERANCE = 1e-4  # of a logit, against PEFT
ADAPTERS: dict[str, dict[str, Any]] = {
    "small": {"r": 4, "target_modules": ["q_proj", "down_proj"]},
    "whole": {
        "r": 8,
        "lora_alpha": 16,
        "use_rslora": True,
        "target_modules": "all-linear",
        "rank_pattern": {"k_proj": 3},
        "alpha_pattern": {"layers.1.self_attn.v_proj": 5},
    },
    "last": {"r": 2, "target_modules": ["gate_proj", "o_proj"], "layers_to_transform": [1]},
}


# What is read ----------------------------------------------------------------------------------


def write_adapter(folder: Path, weights: Mapping[str, Any], **config: Any) -> Path:
    """A saved adapter without PEFT; ``weights`` by the names that follow the usual prefix."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "base"}
    (folder / lora.CONFIG).write_text(json.dumps({**settings, **config}))
    save_file(
        {f"base_model.model.{name}": np.asarray(one, np.float32) for name, one in weights.items()},
        folder / lora.WEIGHTS,
    )
    return folder


Q = "model.layers.0.self_attn.q_proj"
PAIR = {f"{Q}.lora_A.weight": np.ones((2, 3)), f"{Q}.lora_B.weight": np.ones((5, 2))}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 4 / 2),
        ({"use_rslora": True}, 4 / 2**0.5),
        ({"alpha_pattern": {"q_proj": 6}}, 6 / 2),
        ({"alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 8}}, 8 / 2),
        ({"alpha_pattern": {"proj": 8}}, 4 / 2),
    ],
)
def test_the_scale_is_peft_s(tmp_path: Path, config: dict[str, Any], expected: float) -> None:
    factors = lora.read(write_adapter(tmp_path, PAIR, **config)).factors[Q]
    assert factors.b == pytest.approx(expected * np.ones((5, 2)))
    assert factors.norm == pytest.approx(np.linalg.norm(factors.b @ factors.a))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "is a DoRA adapter"),
        ({"modules_to_save": ["lm_head"]}, "trained whole modules"),
        ({"trainable_token_indices": [3]}, "trained rows of the embedding"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_bias": True}, "trained biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "began by rewriting the base's weights"),
        ({"target_parameters": ["experts.weight"]}, "targets parameters"),
        ({"a_setting_of_tomorrow": 1}, "has the setting a_setting_of_tomorrow"),
        ({"peft_type": "LOHA"}, "is of the kind LOHA"),
    ],
)
def test_what_only_merging_can_do_is_refused_with_the_way_out(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    folder = write_adapter(tmp_path / "mine", PAIR, **config)
    with pytest.raises(ExportError, match=said) as refused:
        lora.read(folder)
    assert f"merge it instead: risen export {folder}" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({**PAIR, "model.embed_tokens.lora_embedding_A": np.ones((2, 3))}, "no LoRA factor"),
        ({**PAIR, "lm_head.weight": np.ones((5, 3))}, "trained lm_head.weight"),
        ({**PAIR, f"{Q}.lora_magnitude_vector": np.ones(5)}, "no LoRA factor"),
        ({**PAIR, f"{Q}.lora_A.weight": np.full((2, 3), np.nan)}, "holds NaN"),
        ({**PAIR, f"{Q}.lora_A.weight": np.full((2, 3), np.inf)}, "holds infinity"),
        ({**PAIR, f"{Q}.lora_B.weight": np.zeros((5, 2))}, "changes nothing"),
        ({**PAIR, f"{Q}.lora_B.weight": np.ones((5, 3))}, "is not whole"),
        ({f"{Q}.lora_A.weight": np.ones((2, 3))}, "is not whole"),
    ],
)
def test_weights_that_are_no_adapter_are_refused(
    tmp_path: Path, weights: dict[str, Any], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        lora.read(write_adapter(tmp_path, weights))


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path, PAIR)
    (folder / lora.WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ExportError, match="a pickle, which is not read"):
        lora.read(folder)
    (folder / "adapter_model.bin").rename(folder / lora.WEIGHTS)
    (folder / lora.WEIGHTS).write_bytes(b"\x80\x04.")
    with pytest.raises(ExportError, match="cannot be read"):
        lora.read(folder)


def test_bf16_weights_are_widened_bit_by_bit(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = write_adapter(tmp_path, PAIR)
    a = torch.linspace(-2, 2, 6).reshape(2, 3).to(torch.bfloat16)
    save_file(
        {
            f"base_model.model.{Q}.lora_A.weight": a,
            f"base_model.model.{Q}.lora_B.weight": a.T.contiguous(),
        },
        folder / lora.WEIGHTS,
    )
    assert np.array_equal(lora.read(folder).factors[Q].a, a.float().numpy())


def test_the_adapter_of_a_run_is_found(tmp_path: Path) -> None:
    for step in (9, 10):
        write_adapter(tmp_path / "run" / f"checkpoint-{step}", PAIR)
    assert lora.find(tmp_path / "run").name == "checkpoint-10"
    write_adapter(tmp_path / "run" / "desk", PAIR)
    assert lora.find(tmp_path / "run").name == "desk"
    write_adapter(tmp_path / "run" / "other", PAIR)
    with pytest.raises(ExportError, match=r"several adapters; name one of them: .*desk, .*other"):
        lora.find(tmp_path / "run")
    with pytest.raises(ExportError, match=r"does not exist; did you mean '.*run'"):
        lora.find(tmp_path / "rum")
    (tmp_path / "model").mkdir()
    with pytest.raises(ExportError, match="holds no adapter"):
        lora.find(tmp_path / "model")


# Where it goes ---------------------------------------------------------------------------------

ATTENTION = "model.layers.0.self_attn"


@pytest.mark.parametrize(
    ("product", "outputs", "linears", "parts"),
    [
        ("q_proj", 8, {"q_proj": (4, 8)}, [Part(f"{ATTENTION}.q_proj", 0, 8)]),
        ("o_proj", 8, {"dense": (4, 8)}, [Part(f"{ATTENTION}.dense", 0, 8)]),
        ("up_proj", 8, {"w1": (4, 8), "w3": (4, 8)}, [Part(f"{ATTENTION}.w3", 0, 8)]),
        (
            "qkv_proj",
            12,
            {"q_proj": (4, 8), "k_proj": (4, 2), "v_proj": (4, 2)},
            [
                Part(f"{ATTENTION}.q_proj", 0, 8),
                Part(f"{ATTENTION}.k_proj", 0, 2),
                Part(f"{ATTENTION}.v_proj", 0, 2),
            ],
        ),
        ("qkv_proj", 12, {"qkv_proj": (4, 12)}, [Part(f"{ATTENTION}.qkv_proj", 0, 12)]),
        ("gate_proj", 6, {"gate_up_proj": (4, 12)}, [Part(f"{ATTENTION}.gate_up_proj", 0, 6)]),
        ("q_proj", 8, {"q_proj": (5, 8)}, None),
        ("q_proj", 8, {"q_proj": (4, 9)}, None),
        ("qkv_proj", 12, {"q_proj": (4, 8), "k_proj": (4, 4)}, None),
        ("other", 8, {"q_proj": (4, 8)}, None),
    ],
)
def test_a_product_is_matched_by_layer_name_and_sizes(
    product: str,
    outputs: int,
    linears: dict[str, tuple[int, int]],
    parts: list[Part] | None,
) -> None:
    found = plan(
        [Product(f"/model/layers.0/attn/{product}/MatMul_Q8", 4, outputs)],
        {f"{ATTENTION}.{name}": size for name, size in linears.items()},
    )
    site = Site(f"model.layers.0.attn.{product}", 4, tuple(parts or ()))
    assert found == ([] if parts is None else [site])
    assert from_text(to_text(found), "it") == found


def test_the_second_half_of_a_fused_module_follows_the_first() -> None:
    products = [
        Product(f"/model/layers.3/mlp/{name}/MatMul", 4, 6) for name in ("gate_proj", "up_proj")
    ]
    (_, up) = plan(products, {"model.layers.3.mlp.gate_up_proj": (4, 12)})
    assert up.parts == (Part("model.layers.3.mlp.gate_up_proj", 6, 12),)


def test_experts_have_no_place() -> None:
    linears = {f"model.layers.0.mlp.experts.{i}.up_proj": (4, 8) for i in range(2)}
    assert plan([Product("/model/layers.0/mlp/up_proj/MatMul", 4, 8)], linears) == []


def test_modules_side_by_side_do_not_meet() -> None:
    random = np.random.default_rng(0)
    a1, b1 = random.random((2, 4), np.float32), random.random((3, 2), np.float32)
    a3, b3 = random.random((1, 4), np.float32), random.random((2, 1), np.float32)
    site = Site("s", 4, (Part("one", 0, 3), Part("two", 0, 5), Part("three", 0, 2)))
    factors = {"one": lora.Factors(a1, b1), "three": lora.Factors(a3, b3)}
    packed = lora.pack(lora.Lora(Path("it"), factors, None, None), [site])
    product = packed["s.lora_A"][0] @ packed["s.lora_B"][0]
    assert np.allclose(
        product, np.concatenate([(b1 @ a1).T, np.zeros((4, 5)), (b3 @ a3).T], axis=1)
    )


@pytest.mark.parametrize(
    ("module", "size", "said"),
    [
        (
            "model.layers.7.self_attn.q_proj",
            (3, 5),
            "another model: the bundle's has no model.layers.7",
        ),
        (Q, (4, 5), "another model: .*q_proj takes 4 numbers to 5 there, and 3 to 5 here"),
        (
            "lm_head",
            (3, 5),
            r"changes lm_head, which the bundle's graph cannot switch \(it can q_proj\)",
        ),
    ],
)
def test_an_adapter_of_another_model_does_not_fit(
    module: str, size: tuple[int, int], said: str
) -> None:
    factors = lora.Factors(np.ones((1, size[0]), np.float32), np.ones((size[1], 1), np.float32))
    with pytest.raises(ExportError, match=said):
        lora.pack(
            lora.Lora(Path("it"), {module: factors}, None, None),
            [Site("s", 3, (Part(Q, 0, 5),))],
        )


@pytest.mark.parametrize(
    ("base", "hashes", "said"),
    [
        ("/elsewhere/base", None, None),
        ("org/Base", None, None),
        ("org/other", None, "its base is other, and the bundle's is base"),
        (None, None, "it names no base model"),
        ("/here/moved", {"model.safetensors": "a"}, None),
        ("/here/base", {"model.safetensors": "b"}, "has other weights than the bundle's base"),
    ],
)
def test_an_adapter_belongs_to_the_base_by_its_weights_or_its_name(
    base: str | None, hashes: dict[str, str] | None, said: str | None
) -> None:
    model = {"name": "base", "sha256": {"model.safetensors": "a"}}
    reason = adapters.belongs(lora.Lora(Path("it"), {}, base, None), model, hashes)
    assert (reason is None) if said is None else said in str(reason)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "dot.", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="is no name for an adapter"):
        adapters.check_name(name)


# Switching -------------------------------------------------------------------------------------


class Apart:
    """A bundle with three adapters, and the models that it came from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.ids = np.random.default_rng(1).integers(0, 288, (2, 24), dtype=np.int64)
        self._expected: dict[str | None, Any] = {}

    def peft(self, name: str | None) -> Any:
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(self.folder / "base")
        return base if name is None else PeftModel.from_pretrained(base, self.folder / name).eval()

    def expected(self, name: str | None) -> Any:
        if name not in self._expected:
            with torch.no_grad():
                logits = self.peft(name)(input_ids=torch.from_numpy(self.ids)).logits.numpy()
            self._expected[name] = logits
        return self._expected[name]


def save_adapter(base: Path, folder: Path, config: Mapping[str, Any]) -> Path:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    wrapped = get_peft_model(model, LoraConfig(init_lora_weights=False, **config))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.1)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["Qwen2", "Llama"])
def apart(
    request: pytest.FixtureRequest,
    tokenizer: Any,
    model_of: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Apart:
    """Qwen2 has biases and tied embeddings, Llama neither."""
    folder = tmp_path_factory.mktemp(request.param)
    model = model_of(tokenizer, request.param, tied=request.param == "Qwen2")
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    export(
        folder / "base",
        folder / "out",
        ("fp32", "int8"),
        separate=True,
        check=False,
        progress=False,
    )
    for name, config in ADAPTERS.items():
        adapt(folder / "out", save_adapter(folder / "base", folder / name, config), threads=1)
    return Apart(folder)


BACK_AND_FORTH = ("small", None, "whole", "last", "small", None)


@pytest.mark.slow
def test_switching_gives_peft_s_logits_each_time(apart: Apart) -> None:
    bundle = Bundle.open(apart.out, threads=1)
    assert sorted(bundle.adapters) == sorted(ADAPTERS)
    for name in BACK_AND_FORTH:
        ours = bundle.logits(apart.ids, adapter=name)
        assert np.abs(ours - apart.expected(name)).max() <= TOLERANCE
    assert np.abs(apart.expected("small") - apart.expected(None)).max() > 1


@pytest.mark.slow
def test_an_int8_graph_adds_the_adapter_to_its_own_base(apart: Apart, tmp_path: Path) -> None:
    import onnx

    # Without int8 activations the graph's base is a model whose weights are known exactly.
    folder = shutil.copytree(apart.out / "int8", tmp_path / "int8")
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    onnx.save(graph, folder / "model.onnx")
    from risen_export.runtime.adapters import read
    from risen_export.runtime.session import KeyValueCache, open_session

    session = open_session(folder / "model.onnx", 1)
    graph = onnx.load(folder / "model.onnx")
    for name in BACK_AND_FORTH:
        model = apart.peft(name)
        dequantize(model, graph)
        values = {} if name is None else read(adapters.file_of(apart.out, name))
        cache = KeyValueCache(session, *(2, 0), values)
        ours = cache.prefill(apart.ids, np.array([24, 24]))
        with torch.no_grad():
            theirs = model(input_ids=torch.from_numpy(apart.ids)).logits.numpy()
        assert np.abs(ours - theirs).max() <= TOLERANCE


def dequantize(model: Any, graph: Any) -> None:
    """Put the weights of an int8 graph into the model that it was made from."""
    from onnx.numpy_helper import to_array

    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    modules = dict(base.named_modules())
    sites = {
        site.name: site
        for site in from_text(
            next(
                iter(
                    entry.value
                    for entry in graph.metadata_props
                    if entry.key == "risen_adapter_sites"
                )
            ),
            "it",
        )
    }
    products = {node.name: node for node in graph.graph.node if node.op_type == "MatMulNBits"}
    for node in products.values():
        if node.name.endswith("/high"):
            continue
        sizes = {attribute.name: attribute.i for attribute in node.attribute}
        scales = to_array(tensors[node.input[2]]).reshape(sizes["N"], -1, 1)
        stored = np.zeros((), np.float32)
        for factor, half in ((16, products[f"{node.name}/high"]), (1, node)):
            values = unpacked(to_array(tensors[half.input[1]])).reshape(*scales.shape[:2], -1)
            zeros = unpacked(to_array(tensors[half.input[3]]).reshape(sizes["N"], -1))
            zeros = zeros[:, : scales.shape[1]].reshape(scales.shape)
            stored = stored + factor * (values.astype(np.float32) - zeros)
        weight = torch.from_numpy((stored * scales).reshape(sizes["N"], -1).astype(np.float32))
        site = sites.get(node.name.removeprefix("/").rpartition("/")[0].replace("/", "."))
        row = 0
        for part in () if site is None else site.parts:
            module = modules[part.module]
            inner = getattr(module, "base_layer", module)
            inner.weight.data = weight[row : row + part.width].clone()
            row += part.width
        if site is None:
            base.get_output_embeddings().weight.data = weight
            if base.config.tie_word_embeddings:
                base.get_input_embeddings().weight.data = weight


def unpacked(packed: Any) -> Any:
    """The numbers of 4 bits in bytes, the low half of a byte first."""
    return np.stack([packed % 16, packed // 16], axis=-1).reshape(*packed.shape[:-1], -1)


@pytest.mark.slow
def test_plain_onnxruntime_switches_the_files(apart: Apart) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(apart.out / "fp32" / "model.onnx")
    feeds: dict[str, Any] = {
        "input_ids": apart.ids,
        "attention_mask": np.ones_like(apart.ids),
    }
    for value in session.get_inputs():  # the factors are none of them
        if value.name.startswith("past_key_values"):
            feeds[value.name] = np.zeros((2, value.shape[1], 0, value.shape[3]), np.float32)
    assert {value.name for value in session.get_inputs()} - set(feeds) <= {"position_ids"}
    for name in BACK_AND_FORTH:
        options = onnxruntime.RunOptions()
        if name is not None:
            adapter = onnxruntime.LoraAdapter()
            adapter.Load(str(apart.out / "adapters" / f"{name}.onnx_adapter"))
            options.add_active_adapter(adapter)
        ours = session.run(["logits"], feeds, options)[0]
        assert np.abs(ours - apart.expected(name)).max() <= TOLERANCE


@pytest.mark.slow
def test_onnxruntime_genai_switches_the_files(apart: Apart) -> None:
    import onnxruntime_genai as og

    bundle = Bundle.open(apart.out, threads=1)
    model = og.Model(str(apart.out / "fp32"))
    files = og.Adapters(model)
    for name in ADAPTERS:
        files.load(str(apart.out / "adapters" / f"{name}.onnx_adapter"), name)
    prompt = [1, 5, 9, 70, 33]
    for name in BACK_AND_FORTH:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=32, do_sample=False)
        generator = og.Generator(model, parameters)
        if name is not None:
            generator.set_active_adapter(files, name)
        generator.append_tokens(np.array(prompt))
        theirs: list[int] = []
        while not generator.is_done():
            generator.generate_next_token()
            theirs.append(int(generator.get_next_tokens()[0]))
        rows = bundle.generate_ids([prompt], max_new_tokens=27, ignore_eos=True, adapter=name)
        assert theirs
        assert theirs == rows[0][: len(theirs)]


@pytest.mark.slow
def test_a_base_without_adapters_has_no_branches_to_pay_for(apart: Apart) -> None:
    for variant in ("fp32", "int8"):
        bundle = Bundle.open(apart.out, variant, threads=1)
        prompts = [[1, 5, 9, 70, 33], [4, 4]]
        before = bundle.generate_ids(prompts, max_new_tokens=8)
        assert not bundle._session.get_overridable_initializers()
        bundle.generate_ids(prompts, max_new_tokens=1, adapter="last")
        assert bundle._session.get_overridable_initializers()
        assert bundle.generate_ids(prompts, max_new_tokens=8) == before
        assert bundle.sites == Bundle.open(apart.out, variant, threads=1).sites


@pytest.mark.slow
def test_each_row_of_a_batch_may_have_an_adapter_of_its_own(apart: Apart) -> None:
    from risen_export.runtime.adapters import as_values

    bundle = Bundle.open(apart.out, threads=1)
    packed = [
        lora.pack(lora.read(apart.folder / name), bundle.sites) for name in ("whole", "small")
    ]
    rows = {}
    for name, first in packed[0].items():
        second = packed[1].get(name, np.zeros_like(first))
        axis = 2 if name.endswith("lora_A") else 1
        missing = [(0, 0)] * 3
        missing[axis] = (0, first.shape[axis] - second.shape[axis])
        rows[name] = np.concatenate([first, np.pad(second, missing)])
    ours = bundle.logits(apart.ids, adapter=as_values(rows))
    assert np.abs(ours[0] - apart.expected("whole")[0]).max() <= TOLERANCE
    assert np.abs(ours[1] - apart.expected("small")[1]).max() <= TOLERANCE


# Adding and removing ---------------------------------------------------------------------------


def hashes(out: Path) -> dict[str, str]:
    from risen_plugin.kit.files import sha256

    return {str(p.relative_to(out)): sha256(p) for p in out.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_adding_and_removing_leaves_the_base_as_it_was(apart: Apart, tmp_path: Path) -> None:
    out = Path(shutil.copytree(apart.out, tmp_path / "out"))
    before = hashes(out)
    opened = Bundle.open(out, threads=1)
    added = adapt(out, apart.folder / "last", name="again")
    assert added.seconds < 5
    changed = {name for name, one in hashes(out).items() if before.get(name) != one}
    assert changed == {"manifest.json", "README.md", "adapters/again.onnx_adapter"}
    assert check(out) == []
    # A bundle that was open before finds it, and finds another one in its place.
    assert (
        np.abs(opened.logits(apart.ids, adapter="again") - apart.expected("last")).max()
        <= TOLERANCE
    )
    adapt(out, apart.folder / "small", name="again", force=True)
    assert (
        np.abs(opened.logits(apart.ids, adapter="again") - apart.expected("small")).max()
        <= TOLERANCE
    )
    remove_adapter(out, "again")
    assert check(out) == []
    assert set(before) == set(hashes(out))
    with pytest.raises(
        ExportError, match=r"no adapter 'again'\. The bundle has: small, whole, last"
    ):
        opened.logits(apart.ids, adapter="again")


@pytest.mark.slow
def test_the_readme_lists_the_adapters_that_are_there_now(apart: Apart, tmp_path: Path) -> None:
    out = Path(shutil.copytree(apart.out, tmp_path / "out"))
    readme = out / "README.md"
    before = readme.read_text(encoding="utf-8")
    rows = [line.split(" | ")[:4] for line in before.splitlines() if line.startswith("| `")][-3:]
    assert rows[0] == ["| `small`", "small", "4", "down_proj, q_proj"]
    assert [row[0] for row in rows] == ["| `small`", "| `whole`", "| `last`"]
    edited = before + "\nEdited by hand.\n"
    readme.write_text(edited, encoding="utf-8")
    adapt(out, apart.folder / "last", name="again")
    assert "| `again` | last | 2 |" in readme.read_text(encoding="utf-8")
    remove_adapter(out, "again")
    assert readme.read_text(encoding="utf-8") == edited
    readme.write_text("Mine alone.\n", encoding="utf-8")
    for name in ("small", "whole", "last"):
        remove_adapter(out, name)
    assert readme.read_text(encoding="utf-8") == "Mine alone.\n"


@pytest.mark.slow
def test_two_who_add_at_once_both_add(apart: Apart, tmp_path: Path) -> None:
    out = Path(shutil.copytree(apart.out, tmp_path / "out"))
    names = [f"at-once-{number}" for number in range(2)]
    add = "import sys; from risen_export import adapt; adapt(*sys.argv[1:3], name=sys.argv[3])"
    given = [sys.executable, "-c", add, str(out), str(apart.folder / "last")]
    running = [subprocess.Popen([*given, name]) for name in names]
    assert [process.wait() for process in running] == [0, 0]
    assert set(names) < set(adapters.listed(out))
    assert check(out) == []


@pytest.mark.slow
def test_an_adapter_that_does_something_else_than_when_it_was_added_is_told(
    apart: Apart, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(apart.out, tmp_path / "out"))
    opened = Bundle.open(out, "fp32", threads=1)
    same = measure_again(out, "fp32", opened)
    assert [one.name for one in same] == ["small", "whole", "last"]
    assert list(failures(same, is_exact=True)) == []
    assert remark(same) == "with small, whole, last logits move as they did when it was added"
    entry = adapters.listed(out)["small"]
    entry["check"]["fp32"]["logits_moved_max"] *= 2
    adapters.record(out, "small", entry)
    [told] = failures(measure_again(out, "fp32", opened), is_exact=True)
    assert re.fullmatch(
        r"adapter small moves logits by up to [\d.]+, and by [\d.]+ when it was added", told
    )
    assert told in remark(measure_again(out, "fp32", opened))
    (out / "adapters" / "small.onnx_adapter").write_bytes(b"")
    [told] = failures(measure_again(out, "fp32", opened), is_exact=False)
    assert re.search(r"adapter small: .*small\.onnx_adapter is missing or cut short", told)


@pytest.mark.slow
def test_what_cannot_be_added_leaves_the_bundle_as_it_was(apart: Apart, tmp_path: Path) -> None:
    out = Path(shutil.copytree(apart.out, tmp_path / "out"))
    before = hashes(out)
    huge = {
        f"{Q}.lora_A.weight": np.full((2, 64), 1e30),
        f"{Q}.lora_B.weight": np.full((64, 2), 1e30),
    }
    odd = {
        "model.layers.0.mlp.up_proj.lora_A.weight": np.ones((2, 3)),
        "model.layers.0.mlp.up_proj.lora_B.weight": np.ones((5, 2)),
    }
    for folder, said in (
        (apart.folder / "small", "has an adapter 'small'"),
        (write_adapter(tmp_path / "huge", huge), "logits of .* are not finite"),
        (write_adapter(tmp_path / "odd", odd), "trained on another model: .* 3 numbers to 5 there"),
        (
            write_adapter(tmp_path / "stranger", huge, base_model_name_or_path="org/other"),
            "its base is other, and the bundle's is base; --force",
        ),
        (write_adapter(tmp_path / "dora", huge, use_dora=True), "merge it instead"),
    ):
        with pytest.raises(ExportError, match=said):
            adapt(out, folder)
        assert hashes(out) == before


@pytest.mark.slow
def test_a_changed_file_is_not_used(apart: Apart, tmp_path: Path) -> None:
    out = Path(shutil.copytree(apart.out, tmp_path / "out"))
    file = out / "adapters" / "small.onnx_adapter"
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)
    bundle = Bundle.open(out, threads=1)
    with pytest.raises(ExportError, match=r"small\.onnx_adapter is not what was exported"):
        bundle.logits(apart.ids, adapter="small")
    assert check(out) == ["adapters/small.onnx_adapter"]
    assert np.abs(bundle.logits(apart.ids) - apart.expected(None)).max() <= TOLERANCE


@pytest.mark.slow
def test_adding_an_adapter_loads_no_torch(apart: Apart, tmp_path: Path) -> None:
    out = Path(shutil.copytree(apart.out, tmp_path / "out"))
    script = (
        "import sys\nfrom risen_export import adapt, Bundle\n"
        f"adapt({str(out)!r}, {str(apart.folder / 'last')!r}, name='more')\n"
        f"Bundle.open({str(out)!r}).generate(['a'], max_new_tokens=1, adapter='more')\n"
        "print(sorted({'torch', 'transformers', 'peft', 'onnx'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.slow
def test_a_bundle_with_merged_adapters_takes_none(
    tied_bundle: Path, apart: Apart, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(tied_bundle, tmp_path / "out"))
    with pytest.raises(ExportError, match=r"takes no adapters: .* --adapters separate"):
        adapt(out, apart.folder / "small", force=True)
    assert hashes(out) == hashes(tied_bundle)
    with pytest.raises(ExportError, match="takes no adapters"):
        Bundle.open(out).generate(["a"], adapter="small")


# Exporting with adapters -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_saved_adapter_is_exported_beside_its_base(apart: Apart, tmp_path: Path) -> None:
    result = export(apart.folder / "whole", tmp_path / "out", separate=True, progress=False)
    bundle = Bundle.open(result.path, threads=1)
    assert bundle.adapters == ["whole"]
    for name in ("whole", None):
        ours = bundle.logits(apart.ids, adapter=name)
        assert np.abs(ours - apart.expected(name)).max() <= TOLERANCE
    entry = adapters.listed(result.path)["whole"]
    assert entry["check"]["max_logit_diff_to_peft"] <= TOLERANCE
    assert entry["rank"] == 8
    assert entry["delta_norm"] > entry["largest_delta"][1] > 0
    assert check(result.path) == []
    found = verify_bundle(result.path)["fp32"]
    assert found.failures == ()
    assert "with whole logits move as they did" in found.remark


@pytest.mark.slow
def test_several_saved_adapters_are_kept_beside_one_base(apart: Apart, tmp_path: Path) -> None:
    given = [apart.folder / "last", apart.folder / "whole"]
    result = export(
        apart.folder / "small",
        tmp_path / "out",
        adapters=given,
        separate=True,
        check=False,
        progress=False,
    )
    bundle = Bundle.open(result.path, threads=1)
    assert bundle.adapters == ["small", "last", "whole"]
    for name in BACK_AND_FORTH:
        ours = bundle.logits(apart.ids, adapter=name)
        assert np.abs(ours - apart.expected(name)).max() <= TOLERANCE
    twice = shutil.copytree(apart.folder / "last", tmp_path / "small")
    with pytest.raises(ExportError, match="two adapters are called 'small'"):
        export(apart.folder / "small", tmp_path / "o2", adapters=[twice], separate=True)


@pytest.mark.slow
def test_graphs_for_a_gpu_take_the_same_file(apart: Apart, tmp_path: Path) -> None:
    result = export(
        apart.folder / "whole",
        tmp_path / "out",
        ("fp16", "bf16"),
        targets=("cuda",),
        separate=True,
        check=False,
        progress=False,
    )
    half = 0.05  # fp16 rounds; the adapter moves logits by more than 1
    bundle = Bundle.open(result.path, "cuda-fp16", threads=1, device="cpu")
    for name in ("whole", None):
        ours = bundle.logits(apart.ids, adapter=name)
        assert np.abs(ours - apart.expected(name)).max() <= half
    assert np.abs(apart.expected("whole") - apart.expected(None)).max() > 1
    added = adapt(result.path, apart.folder / "small", threads=1)
    # onnxruntime multiplies no bf16 on a CPU.
    assert added.entry["check"]["cuda-bf16"] is None
    assert added.entry["check"]["cuda-fp16"]["logits_moved_max"] > half
    files = [
        (result.path / "adapters" / f"{name}.onnx_adapter").read_bytes()
        for name in ("whole", "small")
    ]
    assert files == [
        (apart.out / "adapters" / f"{name}.onnx_adapter").read_bytes()
        for name in ("whole", "small")
    ]


@pytest.mark.slow
def test_all_adapters_of_a_model_in_memory_are_kept(
    apart: Apart, tokenizer: Any, tmp_path: Path
) -> None:
    model = apart.peft("small")
    model.load_adapter(str(apart.folder / "last"), "last")
    before = {name: one.clone() for name, one in model.state_dict().items()}
    result = export(
        "mine",
        tmp_path / "out",
        separate=True,
        model=model,
        tokenizer=tokenizer,
        progress=False,
        check=False,
    )
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    bundle = Bundle.open(result.path, threads=1)
    assert bundle.adapters == ["default", "last"]
    for name, same in (("default", "small"), ("last", "last"), (None, None)):
        ours = bundle.logits(apart.ids, adapter=name)
        assert np.abs(ours - apart.expected(same)).max() <= TOLERANCE


@pytest.mark.slow
def test_a_branch_at_the_wrong_projection_is_not_published(
    apart: Apart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = branches.plan

    def crossed(*given: Any) -> list[Site]:
        sites = honest(*given)
        turn = {"gate_proj": "up_proj", "up_proj": "gate_proj"}
        by_name = {site.name: site for site in sites}
        return [
            Site(site.name, site.inputs, by_name[other].parts)
            for site in sites
            for stem, _, last in [site.name.rpartition(".")]
            for other in [f"{stem}.{turn.get(last, last)}"]
        ]

    monkeypatch.setattr(branches, "plan", crossed)
    with pytest.raises(ExportError, match="does not compute adapters of its modules"):
        export(apart.folder / "base", tmp_path / "out", separate=True, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_cannot_be_kept_apart_is_refused_before_weights_are_read(
    adapter: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = adapter(tmp_path)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"not read")
    config = json.loads((folder / lora.CONFIG).read_text())
    (folder / lora.CONFIG).write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(ExportError, match=r"is a DoRA adapter.*merge it instead"):
        export(folder, tmp_path / "out", separate=True, progress=False)
