"""Write a Hugging Face folder of a Llama or Qwen2 model as GGUF, for llama.cpp.

With the package ``gguf``; llama.cpp's own converter is not on the package index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float32]


def convert(model: Path, out: Path, precision: str = "Q8_0") -> None:
    """Write ``model`` to the file ``out``, its matrices in ``precision``, the rest in F32.

    :param precision: a type of ggml, such as Q8_0 or F32.
    """
    import gguf

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    kind = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[config["model_type"]]
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[kind])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config.get("head_dim") or width // heads)
    writer.add_vocab_size(config["vocab_size"])
    _add_tokens(writer, model, config)
    names = gguf.get_tensor_name_map(kind, layers)
    target = gguf.GGMLQuantizationType[precision]
    for name, value in _weights(model):
        own = names.get_name(name, (".weight", ".bias"))
        if own is None:
            raise click.ClickException(f"GGUF has no name for {name}")
        if kind == gguf.MODEL_ARCH.LLAMA and name.endswith(("q_proj.weight", "k_proj.weight")):
            data = _paired(value, heads if "q_proj" in name else key_heads)
        else:
            data = value
        if data.ndim == 2 and precision != "F32":
            writer.add_tensor(own, gguf.quants.quantize(data, target), raw_dtype=target)
        else:
            writer.add_tensor(own, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokens(writer: Any, model: Path, config: dict[str, Any]) -> None:
    """The vocabulary; only token ids are fed, so that the way of splitting text is of no matter."""
    import gguf

    file = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    added = {one["id"]: one["content"] for one in file["added_tokens"]}
    by_id = {number: text for text, number in file["model"]["vocab"].items()} | added
    size = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([by_id.get(number, f"[PAD{number}]") for number in range(size)])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if number in added else normal for number in range(size)])
    merges = [
        one if isinstance(one, str) else " ".join(one) for one in file["model"].get("merges", [])
    ]
    if merges:
        writer.add_token_merges(merges)
    eos = config["eos_token_id"]
    writer.add_eos_token_id(eos[0] if isinstance(eos, list) else eos)


def _weights(model: Path) -> Iterator[tuple[str, Weights]]:
    import torch
    from safetensors import safe_open

    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in list(file.keys()):
                yield name, file.get_tensor(name).to(torch.float32).numpy()


def _paired(value: Weights, heads: int) -> Weights:
    """Rows of a rotated projection in llama.cpp's order: what is rotated together lies together."""
    rows, columns = value.shape
    halves = value.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--precision", default="Q8_0", show_default=True, help="A type of ggml.")
def main(*, model: Path, out: Path, precision: str) -> None:
    """Write MODEL as the GGUF file OUT."""
    convert(model, out, precision)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
