"""How far a graph may be from its model, by family of precision, and what is said where it is not.

The defaults were calibrated on SmolLM2-135M-Instruct; benchmarks/README.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from risen_export.bundles.variants import Family, Variant, from_smallest
from risen_export.gate.measured import Measured
from risen_plugin.errors import ConfigError, near_miss
from risen_plugin.kit.intervals import of_shares

_SHARES = ("agreement", "adherence")
SURE = 0.95
"""How sure a loss of adherence has to be."""


@dataclass(frozen=True)
class Limits:
    """The limits of one family of precisions; None leaves a measure out.

    :param logits: largest difference of a logit, in standard deviations of a position's logits.
    :param agreement: least share of the model's greedy tokens that are the graph's likeliest, too.
    :param kl_mean: largest mean divergence of the next token's distribution, in nats.
    :param kl_p99: the same of its 99th percentile over the positions.
    :param perplexity: largest ratio of the perplexities on the probe's texts.
    :param golden: most golden prompts that the model answers rightly and the graph does not.
    :param adherence: largest loss of strict adherence on the run's held-out instructions. A larger
        one counts where it is sure, too: chance makes one like it in one of 20 cases at most.
    """

    logits: float | None = None
    agreement: float | None = None
    kl_mean: float | None = None
    kl_p99: float | None = None
    perplexity: float | None = None
    golden: int | None = 0
    adherence: float | None = 0.02


DEFAULTS: Mapping[Family, Limits] = {
    "fp32": Limits(logits=1e-3, agreement=1.0, kl_mean=1e-5, kl_p99=1e-4, perplexity=1.0001),
    "16-bit": Limits(agreement=0.97, kl_mean=0.002, kl_p99=0.02, perplexity=1.01),
    "int8": Limits(agreement=0.95, kl_mean=0.01, kl_p99=0.1, perplexity=1.03),
    "int4": Limits(agreement=0.85, kl_mean=0.1, kl_p99=1.0, perplexity=1.15),
}


def read_limits(given: Mapping[str, Any]) -> dict[Family, Limits]:
    """The limits of a configuration: those given, and the defaults.

    :param given: ``{family: {limit: number or null}}``.
    :raises ConfigError: if a family or limit is unknown, or a value is no number.
    """
    limits = dict(DEFAULTS)
    names = [field.name for field in fields(Limits)]
    for named, values in given.items():
        family: Family | None = next((one for one in DEFAULTS if one == named), None)
        if family is None:
            raise ConfigError(
                f"limits: unknown family '{named}'{near_miss(str(named), DEFAULTS) or '.'} "
                f"Choose from: {', '.join(DEFAULTS)}"
            )
        if not isinstance(values, Mapping):
            raise ConfigError(f"limits.{family} is not a mapping of limits")
        for name, value in values.items():
            if name not in names:
                raise ConfigError(
                    f"limits.{family}: unknown limit '{name}'{near_miss(str(name), names) or '.'} "
                    f"Choose from: {', '.join(names)}"
                )
            number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            if value is not None and not number:
                raise ConfigError(
                    f"limits.{family}.{name} is {value!r}, not a number of at least 0"
                )
            if value is not None and name in _SHARES and value > 1:
                raise ConfigError(f"limits.{family}.{name} is {value!r}; it is a share, 1 at most")
        limits[family] = replace(limits[family], **values)
    return limits


@dataclass(frozen=True)
class Failure:
    """One limit that a graph does not keep, in words: what failed, and by how much."""

    measure: str
    reason: str


def judge(measured: Measured, limits: Limits) -> list[Failure]:
    """The limits that are not kept; [] lets the graph through. A measure of NaN keeps no limit."""
    failures = []

    def most(name: str, value: float | None, limit: float | None, words: str) -> None:
        if limit is not None and value is not None and not value <= limit:
            said = words.format(format(value, ".3g"))
            failures.append(Failure(name, f"{said}, more than {limit:.3g}"))

    if measured.not_finite:
        failures.append(Failure("finite", "it computes NaN or infinity"))
    failures += [Failure("files", one) for one in measured.odd_files]
    most("logits", measured.logits_relative, limits.logits, "logits differ by {} of their spread")
    most("kl_mean", measured.kl_mean, limits.kl_mean, "the mean divergence is {}")
    most("kl_p99", measured.kl_p99, limits.kl_p99, "the 99th percentile of the divergence is {}")
    most(
        "perplexity",
        measured.perplexity_ratio,
        limits.perplexity,
        "perplexity is {} times the model's",
    )
    if limits.agreement is not None and not measured.agreement >= limits.agreement:
        failures.append(
            Failure(
                "agreement",
                f"{measured.agreement:.1%} of the tokens agree, fewer than {limits.agreement:.1%}",
            )
        )
    lost = len(measured.golden_lost)
    if limits.golden is not None and lost > limits.golden:
        prompt, answer = measured.golden_lost[0]
        failures.append(
            Failure(
                "golden",
                f"{prompt!r} is answered {_cut(answer)!r}"
                + (f", and {lost - 1} more wrongly" if lost > 1 else ""),
            )
        )
    if limits.adherence is not None and loses_adherence(measured, limits.adherence):
        failures.append(Failure("adherence", _drop_in_words(measured, limits.adherence)))
    return failures


def loses_adherence(measured: Measured, limit: float) -> bool:
    """Whether strict adherence falls by more than ``limit``, and not by chance.

    The graphs' answers to the same instructions are compared, so only those count that one of them
    follows and the other does not (McNemar's exact test).
    """
    if measured.adherence is None or measured.adherence_reference is None:
        return False
    # Whole instructions, since 0.04 - 0.02 is a little more than 0.02 in floats.
    lost, gained = measured.adherence_lost, measured.adherence_gained
    is_larger = lost - gained > limit * measured.instructions * (1 + 1e-9)
    return is_larger and of_shares(lost, gained, measured.instructions, SURE).low > 0


def _drop_in_words(measured: Measured, limit: float) -> str:
    before, after = measured.adherence_reference or 0.0, measured.adherence or 0.0
    return (
        f"strict adherence falls by {before - after:.3g}, more than {limit:.3g}, from {before:.3g} "
        f"to {after:.3g} ({measured.adherence_lost} of {measured.instructions} instructions lost, "
        f"{measured.adherence_gained} gained)"
    )


def _cut(answer: str, longest: int = 50) -> str:
    return answer if len(answer) <= longest else f"{answer[:longest]}..."


def advice(variant: Variant) -> str:
    """What to try in place of a variant that failed: the next one that ``auto`` would try."""
    order = from_smallest(variant.target)
    after = order[order.index(variant) + 1 :]
    return f"try --precision {after[0].precision.name}, or --precision auto" if after else ""
