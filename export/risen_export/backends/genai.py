"""Compile a merged model to an ONNX graph with onnxruntime-genai's model builder.

One folder in, one graph with its genai configuration out. ``publish`` makes it a complete bundle,
``verify`` compares it with the model.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.backends import graph, padding, rotary
from risen_export.backends.genai_mended import mend
from risen_export.backends.genai_support import SUPPORTED, refusal
from risen_export.backends.genai_told import GONE, told
from risen_export.backends.halves import halve_int8
from risen_export.bundles.manifest import DATA, GRAPH
from risen_export.bundles.variants import NEAREST, Variant
from risen_export.quiet import quiet
from risen_plugin.errors import ExportError, one_line
from risen_plugin.kit.files import write_json
from risen_plugin.training.seam import Reach, check_seam

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_NEEDED = ("onnxruntime", "onnxruntime_genai", "onnx", "onnx_ir")
_BUILDER = "onnxruntime_genai.models.builder"
_FOLDERS = (
    "model_name",
    "input_path",
    "output_dir",
    "precision",
    "execution_provider",
    "cache_dir",
)
BUILDER = (
    Reach(
        _BUILDER,
        "parse_extra_options",
        "function",
        "reads windowed_kv_cache",
        (*_FOLDERS, "extra_options"),
    ),
    Reach(_BUILDER, "create_model", "function", "writes the graph", _FOLDERS),
)
"""Names of the model builder, documented as a command; reached for in this module alone."""


def require_runtime() -> None:
    """Refuse to start without the packages of the ``cpu`` or ``gpu`` extra.

    :raises ExportError: naming the missing packages.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            "risen export needs the cpu extra: "
            f"pip install {' '.join(name.replace('_', '-') for name in missing)}"
        )


@functools.cache
def supported() -> frozenset[str]:
    """The classes that are built right and that the installed builder dispatches on.

    Its source is read: that costs nothing, and importing the builder would load torch.
    """
    spec = importlib.util.find_spec("onnxruntime_genai")
    if spec is None or spec.origin is None:
        return frozenset()
    builder = Path(spec.origin).parent / "models" / "builder.py"
    if not builder.is_file():
        return frozenset()
    names = re.findall(r'architectures\[0\] == "(\w+)"', builder.read_text(encoding="utf-8"))
    return frozenset(
        name for name, support in SUPPORTED.items() if (support.builds_as or name) in names
    )


def build(
    model: Path, out: Path, variant: Variant, *, cache: Path, tied: bool, show_log: bool = False
) -> None:
    """Write the graph of the merged model in ``model`` to ``out``.

    :param variant: the precision and the target that it is built for.
    :param cache: a scratch folder on the same disk.
    :param tied: whether the output layer is the transposed embedding; int8 then stores it once.
    :param show_log: let the builder's own messages through.
    :raises ExportError: if the builder does not support the architecture, or fails.
    """
    precision, target = variant.precision, variant.target
    with quiet(show=show_log):
        check_seam(BUILDER)
        try:
            from onnxruntime_genai.models import builder

            options = builder.parse_extra_options(
                str(model),
                str(model),
                str(out),
                precision.word,
                target,
                str(cache),
                _options(variant, json.loads((model / "config.json").read_text("utf-8"))),
            )
            config = _given(options)
            whole = config.to_dict()
            if reason := refusal(whole, target, precision.name):
                raise ExportError(f"the model cannot be exported in {variant.name}: {reason}")
            ropes = rotary.ropes_of(config)
            tell(config, told(whole, _declared(config), ropes))
            head_size = whole.get("head_dim") or config.hidden_size // config.num_attention_heads
            builder.create_model(
                str(model), str(model), str(out), precision.word, target, str(cache), **options
            )
        except (OSError, ExportError):
            raise
        except Exception as error:
            reason = one_line(error)
            raise ExportError(
                f"the model builder could not compile the model to {variant.name}: {reason}"
            ) from error
    if not (out / GRAPH).is_file() or not (out / DATA).is_file():
        raise ExportError(f"the model builder wrote no {GRAPH} with {DATA}")
    if SUPPORTED[whole["architectures"][0]].builds_as:
        _write_first_token(out, whole.get("bos_token_id"))
    with graph.changed(out) as made:
        graph.write_cache_dimension(made, head_size)
        mend(made, whole)
        rotary.write_tables(made, out, ropes)
    if precision.family == "int8" and tied and target == "cpu":
        graph.share_int8_embedding(out)
    if target == "cpu":
        halve_int8(out)
    padding.accept_left_padding(out)


def _given(options: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration that the builder has read and will build from.

    :raises ExportError: if the installed release keeps it elsewhere.
    """
    config = (options.get("hf_details") or {}).get("hf_config")
    if config is None:
        raise ExportError(
            "the installed onnxruntime-genai hands on no configuration to build from; "
            "pip install onnxruntime-genai==0.18.*"
        )
    return config  # type: ignore[no-any-return]


def _write_first_token(out: Path, token: int | None) -> None:
    """Name the model's first token; the builder names another one for classes like ChatGLM's."""
    path = out / "genai_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if token is None:
        content["model"].pop("bos_token_id", None)
    else:
        content["model"]["bos_token_id"] = token
    write_json(path, content, ascii_only=False)


def tell(config: PreTrainedConfig, changes: Mapping[str, Any]) -> None:
    """Change the configuration that the builder was given."""
    for name, value in changes.items():
        if value is not GONE:
            setattr(config, name, value)
        elif hasattr(config, name):
            delattr(config, name)


def _options(variant: Variant, config: Mapping[str, Any]) -> list[str]:
    """The builder's options of a variant.

    :param config: the model's ``config.json``.
    """
    # Without the first a sliding-window layer gets a bounded cache of another shape, which neither
    # our engine nor optimum feeds.
    options = {"windowed_kv_cache": "false", **variant.precision.options}
    if variant.target == "cuda":
        options.pop("accuracy_level", None)  # of the CPU's kernels
        # Norms inside of the attention are taken by CUDA alone, and nothing could be checked here.
        options["fuse_qk_norm_gqa"] = "false"
    if options.get("algo_config") == "rtn" and not _in_blocks(config, int(options["block_size"])):
        # Its quantizer fills no last block; the default one does, with symmetric weights.
        for name in NEAREST:
            options.pop(name)
    return [f"{name}={value}" for name, value in options.items()]


def _in_blocks(config: Mapping[str, Any], block: int) -> bool:
    """Whether every matrix of a model is cut into whole blocks along its inputs."""
    heads = int(config.get("num_attention_heads") or 1)
    hidden = int(config.get("hidden_size") or 0)
    attended = heads * int(config.get("head_dim") or hidden // heads)
    inner = [
        int(value)
        for name, value in config.items()
        if "intermediate_size" in name and isinstance(value, int)
    ]
    return all(size % block == 0 for size in (hidden, attended, *inner))


def _declared(config: PreTrainedConfig) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(config))
