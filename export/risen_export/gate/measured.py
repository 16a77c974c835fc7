"""What was measured of a graph: plain numbers, as the manifest holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Measured:
    """A graph beside its model, the model's own answers fed to both.

    :param positions: compared positions of all rows.
    :param answered: those of them that are answers.
    :param agreement: share of the answers' tokens that are the graph's likeliest, too. A token that
        the model finds as likely as its own, to a thousandth of the logits' spread, agrees.
    :param kl_mean: mean divergence KL(model || graph) of the next token, in nats.
    :param kl_p99: its 99th percentile.
    :param perplexity: of the graph on the probe's texts; None where it has none.
    :param perplexity_reference: of the model.
    :param greedy_equal: tokens that are equal where the graph answers alone, of ``answered``.
    :param logit_diff: largest absolute difference of a logit; None without the model's logits.
    :param logit_spread: mean standard deviation of a position's logits.
    :param golden: golden prompts that the model answers rightly.
    :param golden_lost: of those, (prompt, answer) that the graph answers wrongly.
    :param not_finite: whether a logit is NaN or infinite.
    :param odd_files: what of tokenizer, template and settings is not the model's, in words.
    :param adherence: strict adherence of the graph; None where no instructions were given.
    :param adherence_reference: of the model's exact graph.
    :param instructions: how many were asked.
    :param adherence_lost: those of them that the exact graph follows and this one does not.
    :param adherence_gained: those that this one follows alone.
    """

    positions: int
    answered: int
    agreement: float
    kl_mean: float
    kl_p99: float
    perplexity: float | None
    perplexity_reference: float | None
    greedy_equal: int
    logit_spread: float
    logit_diff: float | None = None
    golden: int = 0
    golden_lost: Sequence[tuple[str, str]] = ()
    not_finite: bool = False
    odd_files: Sequence[str] = ()
    adherence: float | None = None
    adherence_reference: float | None = None
    instructions: int = 0
    adherence_lost: int = 0
    adherence_gained: int = 0

    @classmethod
    def of_nothing(cls, odd_files: Sequence[str]) -> Measured:
        """Of a bundle that cannot be asked: no limit is kept by NaN."""
        nan = math.nan
        return cls(0, 0, nan, nan, nan, nan, nan, 0, nan, odd_files=tuple(odd_files))

    @property
    def logits_relative(self) -> float | None:
        """The largest difference of a logit in standard deviations of a position's logits."""
        if self.logit_diff is None:
            return None
        return self.logit_diff / max(self.logit_spread, 1e-30)

    @property
    def perplexity_ratio(self) -> float | None:
        """The graph's perplexity, times the model's; None where no text was read."""
        if self.perplexity is None or self.perplexity_reference is None:
            return None
        return self.perplexity / self.perplexity_reference

    @property
    def followed(self) -> str:
        """Strict adherence in words: ``41 of 64 instructions, the model 43``."""
        ours, theirs = (
            round((share or 0.0) * self.instructions)
            for share in (self.adherence, self.adherence_reference)
        )
        return f"{ours} of {self.instructions} instructions, the model {theirs}"

    def as_json(self) -> dict[str, Any]:
        """The numbers by name; one that is not finite, which JSON lacks, as None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Measured:
        """The opposite of :meth:`as_json`; a number that was not finite is NaN."""
        known = {field.name: content.get(field.name, field.default) for field in fields(cls)}
        for name in ("agreement", "kl_mean", "kl_p99"):
            known[name] = math.nan if known[name] is None else known[name]
        if known["perplexity"] is None and known["perplexity_reference"] is not None:
            known["perplexity"] = math.nan
        known["odd_files"] = tuple(known["odd_files"])
        known["golden_lost"] = tuple(tuple(one) for one in known["golden_lost"])
        return cls(**known)
