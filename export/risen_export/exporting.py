"""From a run, model or adapter to a published bundle: resolve, merge, compile, measure, publish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from risen_export.backends import genai
from risen_export.backends.choosing import choose
from risen_export.bundles import publish
from risen_export.bundles.variants import (
    AUTO,
    Target,
    Variant,
    from_smallest,
    read_precisions,
    read_targets,
    usual,
    variants,
)
from risen_export.gate.instructions import gather
from risen_export.gate.limits import read_limits
from risen_export.gate.measured import Measured
from risen_export.gate.settings import GateSettings
from risen_export.job import EXACT, Job
from risen_export.merging import apart, source
from risen_export.runtime.session import threads_of_environment
from risen_plugin.config.choices import Use
from risen_plugin.contracts import Exporter
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Exported:
    """One variant of a published bundle.

    :param bytes: size of all its files but the manifest.
    :param bytes_by_kind: the same by kind; see :func:`risen_export.bytes_by_kind`.
    :param measured: the comparison with the merged model; None if it was not made.
    :param failures: the limits that it does not keep, where it was published all the same.
    """

    path: Path
    bytes: int
    bytes_by_kind: dict[str, int]
    measured: Measured | None
    failures: Sequence[str] = ()


@dataclass(frozen=True)
class ExportResult:
    """A published bundle.

    :param path: OUT.
    :param precisions: its variants by the names of their folders, in the order asked for.
    :param tried: with ``auto``, the smaller variants and why each was not kept.
    :param backend: the exporter that built it, and why that one, in one line.
    :param notes: sentences about what the bundle does otherwise than the model, or could not try.
    """

    path: Path
    precisions: dict[str, Exported]
    tried: Mapping[str, str]
    backend: str = ""
    notes: tuple[str, ...] = ()


def export(
    run_or_model: str | Path,
    out: str | Path,
    precisions: Sequence[str] | None = None,
    *,
    targets: Sequence[str] = ("cpu",),
    force: bool = False,
    replace: bool = False,
    check: bool = True,
    gate: GateSettings | None = None,
    progress: bool = True,
    show_log: bool = False,
    model: PreTrainedModel | PeftModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    adapters: Sequence[str | Path] = (),
    separate: bool = False,
    backend: str | Use | Exporter | None = None,
) -> ExportResult:
    """Merge, compile, measure and publish a model as a bundle at ``out``::

        export("out/run", "out/bundle", ("fp32", "int8"))

    :param run_or_model: output folder of a run, model folder, hub id or PEFT adapter. Beside
        ``model`` and ``tokenizer`` it is only the name that the manifest records.
    :param precisions: names of :data:`risen_export.bundles.variants.PRECISIONS`, or ``auto``: the
        smallest that passes. None for fp32 on cpu and fp16 on cuda.
    :param targets: of ``cpu`` and ``cuda``.
    :param force: replace a bundle that is already at ``out``, and publish what fails, marked.
    :param replace: replace a bundle that is already at ``out``, and publish nothing that fails.
    :param check: measure each graph against the merged model, and publish nothing that is too far
        from it.
    :param gate: what is asked for that, and how far apart the answers may be; None for the
        built-in prompts and limits, and the held-out instructions of the run.
    :param show_log: let the libraries' own messages through.
    :param model: a model in memory (plain or PEFT), copied and left as it is.
    :param adapters: folders of PEFT adapters to fold in after those of ``run_or_model``, in the
        order in which they were trained on one another.
    :param separate: keep the adapter of ``run_or_model``, and each of ``adapters``, beside the
        base, so that they can be switched and others added with :func:`risen_export.adapt`.
    :param backend: the exporter that builds the graphs, by a name that ``risen exporters`` lists,
        the place of its code, ``use(...)`` or an object; the first that can if None.
    :raises ExportError: if a file is missing, the model is unsupported or does not fit, a graph is
        too far from it, or the bundle cannot be written.
    """
    settings = gate or GateSettings()
    wanted_targets = read_targets(targets)
    wanted = _wanted(wanted_targets, precisions)
    if not wanted and not check:
        raise ExportError("--precision auto chooses by what is measured; leave --no-verify out")
    genai.require_runtime()
    threads_of_environment()  # refused here, before a library reads it in its own way
    target = Path(out)
    publish.check_target(target, force=force or replace)
    if model is None:
        resolved = source.resolve(run_or_model, () if separate else adapters)
        config = source.check_config(resolved)
    else:
        resolved = None
        config = _config_in_memory(model, tokenizer, str(run_or_model), adapters)
    graphs = [(one.target, one.precision.name) for one in (*((EXACT,) if check else ()), *wanted)]
    if separate:
        why = "the one whose graphs take adapters"
        chosen = choose(config, graphs, _one_for_adapters(backend), named_for=why)
    else:
        chosen = choose(config, graphs, backend)
    instructions, notes = (
        gather(settings, None if resolved is None else resolved.run, apart=separate)
        if check
        else (None, ())
    )
    resolved, kept = apart.kept_apart(resolved, adapters, separate=separate)
    built = [*wanted, *(v for one in wanted_targets if not wanted for v in from_smallest(one))]
    with (
        publish.published(target, force=force or replace) as scratch,
        _bar(built, check=check, progress=progress) as bar,
    ):
        job = Job(
            scratch,
            read_limits(settings.limits),
            bar,
            chosen,
            config,
            show_log=show_log,
            force=force,
        )
        job.merge(
            resolved, model, tokenizer, str(run_or_model), kept if separate else None, check=check
        )
        job.note(notes)
        if check:
            others = any(variant != EXACT for variant in built)
            job.refer(settings, instructions, keep=EXACT in wanted, others=others)
        tried: dict[str, str] = {}
        for variant in wanted:
            job.add(variant)
        for one in wanted_targets if not wanted else ():
            tried |= job.add_smallest(from_smallest(one))
        inner = job.finish()
    found = {name: _exported(target, name, one) for name, one in inner.items()}
    return ExportResult(target, found, tried, chosen.line, job.notes)


def _wanted(targets: Sequence[Target], precisions: Sequence[str] | None) -> tuple[Variant, ...]:
    """The variants that are asked for by name; none with ``auto``."""
    if precisions is None:
        return usual(targets)
    names = read_precisions(precisions)
    return () if AUTO in names else variants(targets, names)


def _config_in_memory(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase | None,
    name: str,
    adapters: Sequence[str | Path],
) -> dict[str, Any]:
    """The configuration of a model in memory, which comes with its tokenizer and adapters."""
    if adapters:
        raise ExportError("a model in memory brings its adapters itself; leave adapters=... out")
    if tokenizer is None:
        raise ExportError("a model in memory needs its tokenizer: export(..., tokenizer=...)")
    return source.config_in_memory(model, name)


def _bar(built: Sequence[Variant], *, check: bool, progress: bool) -> tqdm[Any]:
    """The progress bar: merging, the exact graph and asking the model, then each other variant."""
    others = sum(1 for variant in built if not check or variant != EXACT)
    stages = 1 + 2 * check + others * (1 + check)
    return tqdm(total=stages, desc="export", unit="stage", disable=not progress)


def _one_for_adapters(backend: str | Use | Exporter | None) -> str:
    """The exporter whose graphs take adapters that are kept apart."""
    if backend not in (None, "genai"):
        raise ExportError(
            "adapters are kept apart in graphs of the backend genai alone; leave --backend out, or "
            "merge the adapter"
        )
    return "genai"


def _exported(target: Path, name: str, one: Mapping[str, Any]) -> Exported:
    gate = one["gate"]
    return Exported(
        path=target / name,
        bytes=sum(entry["bytes"] for entry in one["files"].values()),
        bytes_by_kind=one["bytes_by_kind"],
        measured=None if gate is None else Measured.from_json(gate["measured"]),
        failures=() if gate is None else tuple(gate["failures"]),
    )
