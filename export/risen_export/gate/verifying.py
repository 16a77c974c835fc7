"""Measure a bundle again where it is, against what its model answered when it was exported."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from risen_export.bundles import manifest, publish
from risen_export.bundles.changing import changing
from risen_export.bundles.opening import open_folder, refuse_changed
from risen_export.bundles.variants import PRECISIONS, PROVIDERS
from risen_export.gate import adapters_again, adherence
from risen_export.gate import reference as files
from risen_export.gate.asking_graph import measure
from risen_export.gate.limits import Limits, judge, read_limits
from risen_export.gate.measured import Measured
from risen_export.runtime.bundle import Bundle
from risen_plugin.errors import ExportError

_TOLD = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "i8mm", "sve")
"""Instruction sets that change how onnxruntime multiplies."""
_SAME = 1e-6
"""Divergences that differ by less, absolutely, are those of the same kernels."""


@dataclass(frozen=True)
class Verified:
    """One variant, measured again.

    :param measured: None where it cannot run here.
    :param failures: the limits that it does not keep, in words.
    :param remark: what else there is to say, in words.
    """

    measured: Measured | None
    failures: tuple[str, ...] = ()
    remark: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "measured": None if self.measured is None else self.measured.as_json(),
            "failures": list(self.failures),
            "remark": self.remark,
        }


def instruction_set() -> str:
    """How this machine multiplies matrices, in words: ``x86_64, avx2, ...``."""
    words: list[str] = []
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        line = next((x for x in text.splitlines() if x.startswith(("flags", "Features"))), "")
        words = [word for word in _TOLD if word in line.split()]
    except OSError:
        pass
    return ", ".join([platform.machine(), *words])


def gate_of(measured: Measured, limits: Limits, failures: Sequence[str]) -> dict[str, Any]:
    """What the manifest says of a variant that was measured."""
    return {
        "passed": not failures,
        "failures": list(failures),
        "limits": asdict(limits),
        "measured": measured.as_json(),
    }


def ran_here(provider: str) -> str:
    """Where a graph was run, in words, for its manifest."""
    versions = manifest.versions()
    runtime = versions.get("onnxruntime") or versions.get("onnxruntime-gpu", "")
    return f"{provider}, onnxruntime {runtime}, {instruction_set()}"


def verify_bundle(
    path: Path, variant: str | None = None, *, progress: bool = False
) -> dict[str, Verified]:
    """Measure every variant of ``OUT``, or one; the result by variant.

    :raises ExportError: if it is no bundle, was exported without the gate, or a file differs from
        its hash.
    """
    folder, _ = open_folder(path, variant)
    if folder == path:
        raise ExportError(
            f"{path} is one variant; give the folder that holds it, with {files.FOLDER}/ in it"
        )
    content = manifest.read(path) or {}
    recorded: Mapping[str, Any] = content["variants"]
    refuse_changed(path)
    if not (path / files.FOLDER).is_dir():
        raise ExportError(f"{path} was exported with --no-verify, so nothing is there to compare")
    reference = files.load(path / files.FOLDER)
    standard, lacking = adherence.load(path / files.FOLDER)
    names = list(recorded) if variant is None else [folder.name]
    found = {}
    with tqdm(total=len(names), desc="verify", unit="variant", disable=not progress) as bar:
        for name in names:
            bar.set_postfix_str(name)
            one = _verified(path, name, reference, standard)
            found[name] = replace(one, remark="; ".join(filter(None, (one.remark, lacking))))
            bar.update()
    return found


def _verified(
    out: Path, name: str, reference: files.Reference, standard: adherence.Standard | None
) -> Verified:
    """Measure one variant where it was built for, else on the CPU as far as that can run it.

    Its adapters too, if it has any.
    """
    content = manifest.read(out / name) or {}
    gate: Mapping[str, Any] = content.get("gate") or {}
    precision, target = PRECISIONS[content["precision"]], str(content["target"])
    remark = ""
    try:
        opened = Bundle.open(out / name)
        measured = _measured(opened, reference, standard)
    except ExportError as error:
        if target == "cpu":
            raise
        remark = str(error)
        if not precision.on_cpu:
            return Verified(None, remark=remark)
        opened = Bundle.open(out / name, device="cpu")
        measured = _measured(opened, reference, standard)
    limits = Limits(**gate["limits"]) if gate else read_limits({})[precision.family]
    failures = tuple(one.reason for one in judge(measured, limits))
    if remark:
        remark = f"measured on the CPU: {remark}"
    elif content["ran"].startswith(manifest.NOT_RUN):
        remark = _marked(out, name, target, gate_of(measured, limits, failures))
    else:
        remark = _remark(measured, gate, content["ran"])
    again = adapters_again.measure_again(out, name, opened)
    is_exact = target == "cpu" and precision.family == "fp32"
    return Verified(
        measured,
        (*failures, *adapters_again.failures(again, is_exact=is_exact)),
        "; ".join(filter(None, (remark, adapters_again.remark(again)))),
    )


def _measured(
    bundle: Bundle, reference: files.Reference, standard: adherence.Standard | None
) -> Measured:
    measured = measure(bundle, reference)
    return measured if standard is None else standard.add_to(measured, bundle)


def _marked(out: Path, name: str, target: str, gate: dict[str, Any]) -> str:
    """Complete the mark of a variant that was built and not run; what was done, in words."""
    ran = ran_here(PROVIDERS[target])
    try:
        with changing(out):
            publish.mark(out, name, ran, gate)
    except (ExportError, OSError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        return f"runs here ({ran}); the manifest could not be marked so: {why}"
    return f"was built and not run; marked as run: {ran}"


def _remark(measured: Measured, gate: Mapping[str, Any], ran: str) -> str:
    before = gate.get("measured")
    if not before:
        return "it was exported without the gate"
    change = measured.kl_mean - Measured.from_json(before).kl_mean
    if not math.isfinite(change) or abs(change) <= _SAME:
        return ""
    here = instruction_set()
    if ran.endswith(here):
        return f"the divergence changed by {change:+.2g} since the export"
    return (
        f"this machine ({here}) computes other numbers than the exporting one ({ran}): the "
        f"divergence differs by {change:+.2g}"
    )
