"""The smallest onnxruntime that knows everything a graph uses, and whether the installed one does.

The tables are what the released wheels say of themselves: each from 1.20 to 1.32 was installed and
asked for its operators (``get_all_operator_schema``), and given one-node graphs of each operator
set and file version. 1.20 stands for every release up to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    import onnx

_OLDEST = "1.20"
_CONTRIBUTED = "com.microsoft"
# The newest version that each release reads.
_FILE_VERSIONS = {10: "1.20", 11: "1.23", 13: "1.24", 14: "1.32"}
_OPERATOR_SETS = {21: "1.20", 22: "1.21", 23: "1.23", 25: "1.24", 26: "1.25", 28: "1.32"}
# Of onnxruntime's own operators: the release that brought them.
_OPERATORS = {
    "1.23": "PagedAttention",
    "1.25": "CausalConvWithState LinearAttention",
    "1.27": "MatMulNBitsQkv MatMulNBitsMlp",
    "1.29": "MRotaryEmbedding GatedRMSNorm GatedAdd LinearAttentionGate"
    " MatMulBlockQuantizedFp8Weight MatMulBlockQuantizedFp4Weight",
    "1.30": "VarlenCausalConvWithState EngramGate GatedDeltaNet NGramHashMapping",
    "1.31": "HyperConnectionPostMix HyperConnectionPreMix ScaledSiLU SparseAttentionIndexer"
    " BranchwiseRMSNorm DynamicSparseAttention SparsePagedAttention PackedSparseAttentionIndexer"
    " VarlenNGramHashMapping",
    "1.32": "MoEPacked MoEGroupRouter GatedDeltaNetStateReplay HyperConnectionLowRankMix"
    " RMSNormRotary MatMulNBitsQLoRA GatherPacked ConvStateReplay MatMulPacked"
    " PackedSparseAttentionIndexerMerge SpeculativePrefixCommit SwiGLU RouterGateUpProj"
    " Mamba2Verify",
}
# The release since which they take more inputs than so many.
_INPUTS = {
    "MultiHeadAttention": {8: "1.22"},
    "GroupQueryAttention": {9: "1.22", 11: "1.23", 12: "1.25", 14: "1.28", 16: "1.32"},
    "QMoE": {11: "1.24", 14: "1.25", 15: "1.27"},
    "PagedAttention": {10: "1.29"},
    "EngramGate": {5: "1.31"},
    "NGramHashMapping": {4: "1.31"},
    "VarlenCausalConvWithState": {6: "1.32"},
    "GatedAdd": {3: "1.32"},
    "DynamicSparseAttention": {17: "1.32"},
    "PackedSparseAttentionIndexer": {18: "1.32"},
}
# The release since which they take an attribute; an older one refuses the graph.
_ATTRIBUTES = {
    "1.23": "QMoE.activation_alpha QMoE.activation_beta QMoE.block_size QMoE.swiglu_fusion"
    " QMoE.swiglu_limit GroupQueryAttention.qk_output MoE.activation_alpha MoE.activation_beta"
    " MoE.swiglu_fusion MoE.swiglu_limit GatherBlockQuantized.bits",
    "1.25": "GroupQueryAttention.k_quant_type GroupQueryAttention.kv_cache_bit_width"
    " GroupQueryAttention.v_quant_type",
    "1.27": "QMoE.quant_type",
    "1.28": "QMoE.weights_prepacked GroupQueryAttention.qk_norm_epsilon"
    " MatMulNBits.weight_prepacked",
    "1.29": "CausalConvWithState.state_window LinearAttention.state_window"
    " PagedAttention.k_cache_dtype PagedAttention.k_quant_type PagedAttention.kv_cache_layout"
    " PagedAttention.qk_norm_epsilon PagedAttention.rotary_offset PagedAttention.v_cache_dtype"
    " PagedAttention.v_head_size PagedAttention.v_quant_type"
    " GroupQueryAttention.sliding_window_cache",
    "1.30": "CausalConvWithState.channels_last CausalConvWithState.dilation"
    " PagedAttention.is_causal GroupQueryAttention.causal",
    "1.31": "GatedRMSNorm.activation QMoE.accuracy_level QMoE.fc1_expert_weight_bits"
    " QMoE.fc2_expert_weight_bits QMoE.fc3_expert_weight_bits NGramHashMapping.reset_on_eos",
    "1.32": "VarlenCausalConvWithState.delta_offset VarlenCausalConvWithState.group_size"
    " CausalConvWithState.input_channel_offset CausalConvWithState.input_channels"
    " CausalConvWithState.state_channels_last CausalConvWithState.state_length"
    " CausalConvWithState.state_update_capacity DynamicSparseAttention.output_bf16"
    " QMoE.swiglu_limit_after_activation MoE.swiglu_limit_after_activation"
    " GatedDeltaNet.gate_lower_bound GroupQueryAttention.k_norm_epsilon"
    " GroupQueryAttention.q_norm_epsilon PackedSparseAttentionIndexer.indexshare_state_policy"
    " PackedSparseAttentionIndexer.max_output_entries",
}


def smallest_runtime(graph: Path) -> dict[str, str]:
    """What a graph needs to be run: ``onnxruntime`` and its smallest release, as ``1.25``."""
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    return {"onnxruntime": max((_OLDEST, *_needed(model)), key=_order)}


def require_runtime(requires: Mapping[str, str], folder: Path, installed: str) -> None:
    """Refuse a bundle that the installed onnxruntime cannot run.

    :param requires: that of its manifest.
    :raises ExportError: with the release that it needs.
    """
    needed = requires.get("onnxruntime", _OLDEST)
    if _order(installed) < _order(needed):
        raise ExportError(
            f"{folder} needs onnxruntime {needed} or newer, and {installed} is installed; "
            f"upgrade it: pip install 'onnxruntime>={needed}'"
        )


def _needed(model: onnx.ModelProto) -> Iterator[str]:
    """The release that each thing in a graph came with."""
    yield _reached(_FILE_VERSIONS, model.ir_version)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            yield _reached(_OPERATOR_SETS, entry.version)
    operators = _by_name(_OPERATORS)
    attributes = _by_name(_ATTRIBUTES)
    for node in _nodes([model.graph, *model.functions]):
        if node.domain != _CONTRIBUTED:
            continue
        if node.op_type in operators:
            yield operators[node.op_type]
        # An input that is left empty counts where it has a place.
        inputs = _INPUTS.get(node.op_type, {})
        yield from (release for most, release in inputs.items() if len(node.input) > most)
        for attribute in node.attribute:
            release = attributes.get(f"{node.op_type}.{attribute.name}")
            if release is not None:
                yield release


def _nodes(graphs: Iterable[onnx.GraphProto | onnx.FunctionProto]) -> Iterator[onnx.NodeProto]:
    """The nodes of graphs, and of the graphs inside of them."""
    for graph in graphs:
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                yield from _nodes([*inner, *attribute.graphs])


def _reached(table: Mapping[int, str], version: int) -> str:
    """The first release that reads ``version``; the newest known one if none does."""
    return next((release for most, release in table.items() if version <= most), _newest(table))


def _newest(table: Mapping[int, str]) -> str:
    """The newest release of a table."""
    return max(table.values(), key=_order)


def _by_name(table: Mapping[str, str]) -> dict[str, str]:
    return {name: release for release, names in table.items() for name in names.split()}


def _order(release: str) -> tuple[int, ...]:
    """``1.9`` before ``1.22.1``; what follows the numbers does not count."""
    found = re.match(r"\d{1,9}(\.\d{1,9})*", release)
    return tuple(int(part) for part in found[0].split(".")) if found else (0,)
