"""The exporter ``optimum``: optimum-onnx, in a process and an environment of its own.

optimum-onnx 0.1 needs transformers below 4.58, and the rest of risen a newer one. So it is given
the model as transformers 4 reads it: without that, a model that transformers 5 saved gets another
rotary table without a word, since its base is read as 10000, and its tokenizer class is unknown.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_export.backends import concatenating, optimum_worker, rounding
from risen_export.backends.traced import unfit
from risen_export.bundles.manifest import GRAPH
from risen_export.quiet import quiet
from risen_plugin.errors import ExportError
from risen_plugin.kit.files import write_json

VARIABLE = "RISEN_OPTIMUM_PYTHON"
_WEIGHTS = (".safetensors", ".safetensors.index.json")
_OWN_KEYS = ("rope_type", "rope_theta", "partial_rotary_factor")
"""Of a table of rope settings: those that transformers 4 keeps beside the table."""


@dataclass(frozen=True)
class OptimumExporter:
    """optimum-onnx in an environment of its own, for models that transformers 4.57 knows.

    :param python: the interpreter of that environment; RISEN_OPTIMUM_PYTHON names it if empty.
    """

    python: str = ""

    def refuses(self, config: Mapping[str, Any], target: str, precision: str) -> str | None:
        """Why no right graph comes of such a model, in one line; None if one does."""
        python = self._interpreter()
        if not python:
            return f"{VARIABLE} names no interpreter of an environment with optimum-onnx"
        if shutil.which(python) is None:
            return f"there is no interpreter {python}, which {VARIABLE} or its option python names"
        if target != "cpu":
            return f"it builds for cpu alone, not for {target}"
        if precision not in rounding.PRECISIONS:
            return f"it builds {', '.join(rounding.PRECISIONS)}, not {precision}"
        return unfit(config) or _unsaid(config)

    def __call__(
        self,
        *,
        model: str,
        out: str,
        target: str,
        precision: str,
        scratch: str,
        show_log: bool = False,
        **context: Any,
    ) -> None:
        """Have optimum write its graph, and make that one of a bundle.

        The graph stays in ``scratch`` for the next precision.
        """
        import onnx_ir as ir

        config, kept = concatenating.read_config(Path(model)), Path(scratch, "optimum")
        with quiet(show=show_log):
            if not (kept / GRAPH).is_file():
                old, theirs = Path(scratch, "transformers4"), Path(scratch, "optimum-own")
                save_as_4(Path(model), old)
                self._run(old, theirs, show_log=show_log)
                program = ir.load(theirs / GRAPH)
                concatenating.name_values(program.graph)
                concatenating.save(program, kept)
                del program
                shutil.rmtree(theirs)
                shutil.rmtree(old)
            rounding.deliver(kept, Path(out), config, precision)

    def _interpreter(self) -> str:
        return self.python or os.environ.get(VARIABLE, "")

    def _run(self, model: Path, out: Path, *, show_log: bool) -> None:
        """Run the worker.

        :raises ExportError: with the last line that it wrote, if it fails.
        """
        done = subprocess.run(
            # Isolated: neither our packages nor those that PYTHONPATH names are for it.
            [self._interpreter(), "-I", optimum_worker.__file__, str(model), str(out)],
            capture_output=not show_log,
            text=True,
            check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        if done.returncode or not (out / GRAPH).is_file():
            lines = [line for line in (done.stderr or "").splitlines() if line.strip()]
            reason = " ".join(lines[-1].split()) if lines else f"exit code {done.returncode}"
            raise ExportError(f"optimum-onnx failed: {reason}")


def save_as_4(model: Path, folder: Path) -> None:
    """Write the model in ``model`` so that transformers 4 reads it: weights by links.

    The tokenizer is left out: optimum does not need it, and a bundle brings its own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", as_4(concatenating.read_config(model)), ascii_only=False)
    for file in model.iterdir():
        if file.name.endswith(_WEIGHTS):
            (folder / file.name).symlink_to(file.resolve())


def as_4(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of transformers 5 in the words of transformers 4.

    >>> as_4({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})["rope_theta"]
    500000.0
    """
    told = dict(config)
    told["torch_dtype"] = "float32"
    told.pop("dtype", None)
    ropes = config.get("rope_parameters")
    if not isinstance(ropes, Mapping):
        return told
    del told["rope_parameters"]
    nested = isinstance(ropes.get("full_attention"), Mapping)
    rope = ropes["full_attention"] if nested else ropes
    if nested and "sliding_attention" in ropes:
        told["rope_local_base_freq"] = ropes["sliding_attention"].get("rope_theta", 10000.0)
    if "rope_theta" in rope:
        told["rope_theta"] = told["rotary_emb_base"] = rope["rope_theta"]
    if "partial_rotary_factor" in rope:
        told["partial_rotary_factor"] = told["rotary_pct"] = rope["partial_rotary_factor"]
    if rope.get("rope_type", "default") == "default":
        told["rope_scaling"] = None
    else:
        told["rope_scaling"] = {
            name: value
            for name, value in rope.items()
            if name not in _OWN_KEYS or name == "rope_type"
        }
    return told


def _unsaid(config: Mapping[str, Any]) -> str | None:
    """Why transformers 4 has no words for the rope settings; None if it has."""
    ropes = config.get("rope_parameters")
    each = ropes.values() if isinstance(ropes, Mapping) else ()
    nested = any(isinstance(one, Mapping) for one in each)
    if nested and not str(config.get("model_type")).startswith("gemma3"):
        return "transformers 4 knows no rotary table for each kind of layer but in Gemma 3"
    return None
