"""What a bundle can be built for: targets, precisions, and where each of them runs.

One table says what each precision stores, which options of the model builder make it, and on which
targets it runs. Names that people type are read here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from risen_plugin.errors import ExportError, near_miss

Target: TypeAlias = Literal["cpu", "cuda"]
TARGETS: tuple[Target, ...] = get_args(Target)
AUTO = "auto"
Family: TypeAlias = Literal["fp32", "16-bit", "int8", "int4"]

PROVIDERS: Mapping[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""The execution provider of onnxruntime that runs each target."""


@dataclass(frozen=True)
class Precision:
    """One way to store and multiply the weights.

    :param name: what people type.
    :param family: which limits of the gate it is judged by.
    :param stored: what is stored, in words.
    :param activations: what the weights are multiplied in.
    :param bits: of a stored weight, scales included; the order from smallest to largest.
    :param word: the model builder's word for it.
    :param options: the model builder's options.
    :param targets: where it can be built for.
    :param on_cpu: whether the CPU provider runs a graph that was built for cuda, for parity.
    """

    name: str
    family: Family
    stored: str
    activations: str
    bits: float
    word: str
    options: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[Target, ...] = TARGETS
    on_cpu: bool = True


_CPU: tuple[Target, ...] = ("cpu",)
_CUDA: tuple[Target, ...] = ("cuda",)
_ROUNDED = "int8, on the CPU"
# Rounding to nearest, with a zero point: on SmolLM2-135M-Instruct it kept 362 of 384 greedy tokens
# in int8 where symmetric rounding kept 303, and costs a byte for 32 weights.
NEAREST = {"algo_config": "rtn", "is_symmetric": "false"}
"""The model builder's options for it."""
_K = {"algo_config": "k_quant"}
_MIXED = {"matmul_mixed_precision": "last_matmul:int8,mixed_layers:int8"}


def _int(
    name: str, bits: float, stored: str, options: Mapping[str, str], *, fast: bool = False
) -> Precision:
    kind: Family = "int4" if name.startswith("int4") else "int8"
    level = {"accuracy_level": "4" if fast else "1", "block_size": "32"}
    activations = _ROUNDED if fast else "fp32; fp16 on cuda"
    targets = _CPU if fast else TARGETS
    return Precision(name, kind, stored, activations, bits, kind, {**level, **options}, targets)


PRECISIONS: Mapping[str, Precision] = {
    one.name: one
    for one in (
        # The builder's fp32 graphs for CUDA lack the outputs of the cache (its packed Attention).
        Precision("fp32", "fp32", "fp32", "fp32", 32, "fp32", targets=_CPU),
        Precision("fp16", "16-bit", "fp16", "fp16", 16, "fp16", targets=_CUDA),
        Precision("bf16", "16-bit", "bf16", "bf16", 16, "bf16", targets=_CUDA, on_cpu=False),
        _int("int8-fine", 10.5, "int8 in blocks of 16", {**NEAREST, "block_size": "16"}),
        _int("int8", 9.25, "int8 in blocks of 32", NEAREST),
        _int("int8-fast", 9.25, "as int8", NEAREST, fast=True),
        _int("int4-kquant-mixed", 6.62, "as int4-kquant, int8 where it hurts", {**_K, **_MIXED}),
        _int("int4-mixed", 6.6, "as int4, int8 where it hurts most", {**NEAREST, **_MIXED}),
        _int("int4-kquant", 5.13, "int4 in blocks of 32, rounded by k-quant", _K),
        _int("int4", 5.12, "int4 in blocks of 32", NEAREST),
        _int("int4-fast", 5.12, "as int4", NEAREST, fast=True),
        _int("int4-128", 4.28, "int4 in blocks of 128", {**NEAREST, "block_size": "128"}),
    )
}


USUAL: Mapping[Target, str] = {"cpu": "fp32", "cuda": "fp16"}
"""The precision of each target that loses the least."""


@dataclass(frozen=True)
class Variant:
    """One folder of a bundle: a precision, built for a target."""

    target: Target
    precision: Precision

    @property
    def name(self) -> str:
        """The name of its folder: the precision, with ``cuda-`` before it on cuda."""
        return self.precision.name if self.target == "cpu" else f"cuda-{self.precision.name}"


def read_targets(names: Iterable[str]) -> tuple[Target, ...]:
    """The targets of a list of names, commas allowed, without repetition.

    :raises ExportError: if one is unknown.
    """
    chosen = []
    for name in _split(names):
        found = [target for target in TARGETS if target == name]
        if not found:
            hint = near_miss(name, TARGETS) or "."
            raise ExportError(f"unknown target '{name}'{hint} Choose from: {', '.join(TARGETS)}")
        chosen += found
    return tuple(chosen) or ("cpu",)


def read_precisions(names: Iterable[str]) -> tuple[str, ...]:
    """The precisions of a list of names, commas allowed, without repetition; ``auto`` stays.

    :raises ExportError: if one is unknown, ``auto`` is not alone, or there is none.
    """
    known = [*PRECISIONS, AUTO]
    chosen = _split(names)
    for name in chosen:
        if name not in known:
            hint = near_miss(name, known) or "."
            raise ExportError(f"unknown precision '{name}'{hint} Choose from: {', '.join(known)}")
    if not chosen:
        raise ExportError(f"no precision given; choose from: {', '.join(known)}")
    if AUTO in chosen and len(chosen) > 1:
        raise ExportError("--precision auto chooses one itself; give it alone")
    return chosen


def variants(targets: Iterable[Target], precisions: Iterable[str]) -> tuple[Variant, ...]:
    """Every pair of a target and a precision that exists.

    :raises ExportError: if a precision is for none of the targets.
    """
    chosen: list[Variant] = []
    wanted = tuple(targets)
    for name in precisions:
        precision = PRECISIONS[name]
        fit: list[Target] = [target for target in wanted if target in precision.targets]
        if not fit:
            raise ExportError(
                f"precision {name} is built for {' and '.join(precision.targets)}, not for "
                f"{' and '.join(wanted)}; add --target {precision.targets[0]}, or choose from: "
                f"{', '.join(n for n, p in PRECISIONS.items() if set(wanted) & set(p.targets))}"
            )
        chosen += [Variant(target, precision) for target in fit]
    return tuple(chosen)


def usual(targets: Iterable[Target]) -> tuple[Variant, ...]:
    """The variants of an export that names no precision: of each target the one closest to fp32."""
    return tuple(Variant(target, PRECISIONS[USUAL[target]]) for target in targets)


def from_smallest(target: Target) -> tuple[Variant, ...]:
    """The variants of a target in the order in which ``auto`` tries them: the smallest first.

    Of two that store the same, the one that multiplies in int8 comes first: it is the faster one.
    """
    fit = [one for one in PRECISIONS.values() if target in one.targets]
    fit.sort(key=lambda one: (one.bits, one.activations != _ROUNDED))
    return tuple(Variant(target, one) for one in fit)


def _split(names: Iterable[str]) -> tuple[str, ...]:
    parts = (part.strip() for name in names for part in name.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))
