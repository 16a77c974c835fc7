"""Compile a merged model folder to an ONNX graph with onnxruntime-genai's model builder.

One folder in, one graph with its genai configuration out. Making it a complete bundle is
``bundle``'s business, comparing it with the model is ``verify``'s.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from risen_export import graph
from risen_export.manifest import DATA, GRAPH
from risen_plugin.errors import ExportError, near_miss, one_line

PRECISIONS = ("fp32", "int8")
_NEEDED = ("onnxruntime", "onnxruntime_genai", "onnx", "onnx_ir")
_NOISY = ("onnxruntime.quantization", "transformers")
_log = logging.getLogger("risen_export")


def require_runtime() -> None:
    """Refuse to start without the packages of the ``cpu`` or ``gpu`` extra.

    :raises ExportError: naming what is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            "risen export needs the cpu extra: pip install 'risen-plugin[cpu]' (or [gpu]); "
            f"missing: {', '.join(missing)}"
        )


def check_precisions(names: tuple[str, ...]) -> tuple[str, ...]:
    """The precisions without repetition, in the order given.

    :raises ExportError: if one is unknown, or none is given.
    """
    for name in names:
        if name not in PRECISIONS:
            raise ExportError(
                f"unknown precision '{name}'{near_miss(name, PRECISIONS) or '.'} "
                f"Choose from: {', '.join(PRECISIONS)}"
            )
    if not names:
        raise ExportError(f"no precision given; choose from: {', '.join(PRECISIONS)}")
    return tuple(dict.fromkeys(names))


def supported_architectures() -> frozenset[str]:
    """The causal language models the installed builder dispatches on, read from its source.

    Reading the text costs nothing; importing the builder would load torch.
    """
    spec = importlib.util.find_spec("onnxruntime_genai")
    if spec is None or spec.origin is None:
        return frozenset()
    source = Path(spec.origin).parent / "models" / "builder.py"
    if not source.is_file():
        return frozenset()
    names = re.findall(r'architectures\[0\] == "(\w+)"', source.read_text(encoding="utf-8"))
    return frozenset(name for name in names if name.endswith("ForCausalLM"))


def build(
    model: Path, out: Path, precision: str, *, cache: Path, tied: bool, show_log: bool = False
) -> None:
    """Write the graph of the merged model in ``model`` to ``out``.

    :param cache: a scratch folder on the same disk.
    :param tied: the output layer is the transposed embedding; int8 then keeps one copy of it.
    :param show_log: let the builder's own messages through.
    :raises ExportError: if the builder does not support the architecture, or fails.
    """
    with quiet(show=show_log):
        try:
            from onnxruntime_genai.models import builder

            options = builder.parse_extra_options(
                str(model),
                str(model),
                str(out),
                precision,
                "cpu",
                str(cache),
                # Without it a sliding-window layer gets a bounded cache of another shape, which
                # neither our engine nor optimum feeds.
                ["windowed_kv_cache=false"],
            )
            builder.create_model(
                str(model), str(model), str(out), precision, "cpu", str(cache), **options
            )
        except OSError:
            raise
        except Exception as error:
            reason = one_line(error)
            raise ExportError(
                f"the model builder could not compile the model to {precision}: {reason}"
            ) from error
    if not (out / GRAPH).is_file() or not (out / DATA).is_file():
        raise ExportError(f"the model builder wrote no {GRAPH} with {DATA}")
    graph.write_cache_dimension(out)
    if precision == "int8" and tied:
        graph.share_int8_embedding(out)


@contextlib.contextmanager
def quiet(*, show: bool = False) -> Iterator[io.StringIO]:
    """Keep libraries from printing and logging, and from configuring the root logger, for a while.

    What was printed goes to the ``risen_export`` logger at DEBUG. onnxruntime's quantizer calls
    ``logging.basicConfig`` when it is imported; the root logger is put back as it was.
    """
    printed = io.StringIO()
    if show:
        yield printed
        return
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    noisy = [(logger, logger.level) for logger in map(logging.getLogger, _NOISY)]
    for logger, _ in noisy:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield printed
    finally:
        for logger, before in noisy:
            logger.setLevel(before)
        for handler in list(root.handlers):
            if handler not in handlers:
                root.removeHandler(handler)
        root.setLevel(level)
        if printed.getvalue():
            _log.debug("%s", printed.getvalue())


def unsupported(architecture: str, known: frozenset[str]) -> ExportError:
    """The error for an architecture the builder does not know."""
    return ExportError(
        f"architecture {architecture} cannot be exported{near_miss(architecture, known) or '.'} "
        f"The installed model builder supports: {', '.join(sorted(known))}"
    )
