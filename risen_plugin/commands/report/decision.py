"""Three sentences for whoever decides about a model: what was gained, what it cost, what to do.

Pure. ``evidence_of`` takes what a record holds; ``decide`` puts it into words.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from risen_plugin.commands.report import limits, paired
from risen_plugin.commands.report.markup import duration
from risen_plugin.commands.report.verdicts import reason_of
from risen_plugin.errors import typed_line
from risen_plugin.guard.strengths import in_words
from risen_plugin.guard.verdicts import CHANCE
from risen_plugin.kit.intervals import Interval
from risen_plugin.kit.jsonable import as_number
from risen_plugin.progress import (
    ADHERENCE,
    FACTS_KNOWN,
    LOST_FACTS,
    OF_DOMAIN,
    OF_TASK,
    OF_THE_GUARD,
    PROBE_LOSS,
    ROWS,
    STRENGTH,
    TRIP_WIRE_RATE,
    TRIP_WIRE_RISE,
)
from risen_plugin.record.reading import Phase, Run

Advice: TypeAlias = Literal["ship", "do not ship", "not enough evidence"]
_log = logging.getLogger("risen_plugin")
_LEAST_KL = 0.001
_USUAL_CONFIDENCE = 0.95  # where the guard was given none


@dataclass(frozen=True)
class Gain:
    """Strict adherence before and after.

    :param change: with its one-sided ends; None where a record does not tell.
    :param rows: how many instructions; None where a record does not tell.
    :param on: whose rows: ``report`` or ``guard``.
    :param sure_by_guard: whether the guard told the gain from chance, by all checks of its rows;
        None where it was not asked (``guard.confidence`` is null).
    """

    before: float
    after: float
    change: Interval | None = None
    rows: int | None = None
    on: str = "report"
    sure_by_guard: bool | None = False


@dataclass(frozen=True)
class Cost:
    """What phases did to all else.

    :param loss: the rise of the probe loss, all kept phases together, and its limit for one.
    :param kl: the largest forward KL of a phase.
    :param moved: measures of domain and tasks: name, before, after.
    :param facts: questions of fact whose answers were lost, and how many were known.
    :param wires: the rate of tripped wires before and after, where it rose for sure.
    """

    seconds: float | None = None
    loss: float | None = None
    loss_limit: float | None = None
    kl: float | None = None
    moved: Sequence[tuple[str, float, float]] = ()
    facts: tuple[Sequence[str], int] | None = None
    wires: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evidence:
    """What a record says for a decision.

    :param ended: RISEN phases that have ended, and ``kept`` those of them that were kept.
    :param gain: of the kept phases; where none was kept, of the latest dropped one.
    :param cost: the same.
    :param confidence: of the ends of the gain.
    :param reason: the guard's, of the latest phase.
    :param goes_on: whether the run does.
    :param parts: the strengths of the kept phases that were kept in part.
    """

    ended: int = 0
    kept: int = 0
    gain: Gain | None = None
    cost: Cost = field(default_factory=Cost)
    confidence: float = _USUAL_CONFIDENCE
    reason: str = ""
    goes_on: bool = False
    parts: Sequence[float] = ()


@dataclass(frozen=True)
class Decision:
    """The three sentences, and the advice in a word."""

    gained: str
    cost: str
    verdict: str
    advice: Advice

    @property
    def sentences(self) -> tuple[str, str, str]:
        return self.gained, self.cost, self.verdict


def decide(evidence: Evidence) -> Decision:
    """Put the evidence into three sentences."""
    advice, why = _advice(evidence)
    more = " so far" if evidence.goes_on else ""
    return Decision(_gained(evidence), _cost(evidence), f"{_capital(advice)}{more}: {why}.", advice)


def decision_of(run: Run) -> Decision | None:
    """The decision about a run; None, with a warning, where its record holds odd values."""
    try:
        return decide(evidence_of(run))
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        _log.warning("the report lacks its three sentences: %s", typed_line(error))
        return None


def evidence_of(run: Run) -> Evidence:
    """What a run's record says for a decision."""
    ended = [p for p in run.phases if p.kind == "risen" and p.ends is not None]
    kept = [phase for phase in ended if phase.accepted]
    counted = kept or ended[-1:]
    confidence = limits.setting(run, "guard", "confidence")
    seconds = sum((phase.ends or 0.0) - phase.begins for phase in ended)
    return Evidence(
        len(ended),
        len(kept),
        _gain_of(run, counted, confidence) if counted else None,
        _cost_of(run, counted, seconds) if counted else Cost(),
        _USUAL_CONFIDENCE if confidence is None else confidence,
        _in_full(reason_of(ended[-1])) if ended else "",
        run.holder is not None,
        [share for p in kept if (share := p.number_of(STRENGTH)) is not None and share < 1.0],
    )


# From the record


def _gain_of(run: Run, counted: Sequence[Phase], confidence: float | None) -> Gain | None:
    is_sure = None if confidence is None else all(_is_sure(phase) for phase in counted)
    shown = paired.compared(run)
    for on in ("report", "guard"):
        rows = paired.judged(shown.pairs, on) if shown else []
        if rows:
            passed = [sum(bool(pair.before.passed) for pair in rows)]
            passed.append(sum(bool(pair.after.passed) for pair in rows))
            change = paired.interval(rows, on, confidence or _USUAL_CONFIDENCE)
            count = len(rows)
            return Gain(passed[0] / count, passed[1] / count, change, count, on, is_sure)
    before = counted[0].number_of(f"{ADHERENCE}_before")
    after = counted[-1].number_of(f"{ADHERENCE}_after")
    if before is None or after is None:
        return None
    change = None
    if len(counted) == 1 and (measured := limits.measured(counted[0], limits.GAIN)) is not None:
        change = Interval(*measured)
    there = counted[0].number_of(ROWS)
    return Gain(before, after, change, None if there is None else round(there), "guard", is_sure)


def _is_sure(phase: Phase) -> bool:
    """Whether the guard told a phase's gain from chance."""
    for name in ("checks_gain", "gain"):
        low = phase.number_of(f"{OF_THE_GUARD}{name}_low")
        if low is not None:
            return low > 0.0
    return False


def _cost_of(run: Run, counted: Sequence[Phase], seconds: float) -> Cost:
    rises = [_change(phase, PROBE_LOSS) for phase in counted]
    known = [rise for rise in rises if rise is not None]
    kls = [phase.number_of(f"{OF_THE_GUARD}forward_kl") for phase in counted]
    latest = counted[-1]
    facts = latest.number_of(FACTS_KNOWN)
    lost = [
        str(question)
        for phase in counted
        if isinstance(named := phase.metrics.get(LOST_FACTS), list)
        for question in named
    ]
    return Cost(
        seconds,
        sum(known) if known and len(known) == len(rises) else None,
        limits.limit(run, latest, limits.PROBE_LOSS_RISE),
        max((kl for kl in kls if kl is not None), default=None),
        list(_moved(counted[0], latest)),
        None if facts is None else (list(dict.fromkeys(lost)), round(facts)),
        _wires(counted),
    )


def _change(phase: Phase, name: str) -> float | None:
    before, after = (phase.number_of(f"{name}_{when}") for when in ("before", "after"))
    return None if before is None or after is None else after - before


def _moved(first: Phase, last: Phase) -> Iterator[tuple[str, float, float]]:
    for name in first.metrics:
        stem = str(name).removesuffix("_before")
        if stem == name or not stem.startswith((OF_DOMAIN, OF_TASK)):
            continue
        before, after = as_number(first.metrics[name]), last.number_of(f"{stem}_after")
        if before is not None and after is not None:
            task = stem.removeprefix(OF_TASK)
            yield (f"task {task}" if task != stem else stem.removeprefix(OF_DOMAIN), before, after)


def _wires(counted: Sequence[Phase]) -> tuple[float, float] | None:
    if not any(
        (phase.number_of(f"{OF_THE_GUARD}{TRIP_WIRE_RISE}_low") or 0.0) > 0.0 for phase in counted
    ):
        return None
    before = counted[0].number_of(f"{TRIP_WIRE_RATE}_before")
    after = counted[-1].number_of(f"{TRIP_WIRE_RATE}_after")
    return None if before is None or after is None else (before, after)


def _in_full(reason: str) -> str:
    """A reason that is a sentence without the columns of the guard's table beside it."""
    return f"the probe loss {reason}" if reason.startswith("rises by") else reason


# Into words


def _gained(evidence: Evidence) -> str:
    gain = evidence.gain
    if not evidence.ended:
        return "Nothing has been gained yet: no RISEN phase has ended."
    if not evidence.kept:
        which = "the only phase" if evidence.ended == 1 else f"all {evidence.ended} phases"
        reached = "" if gain is None else f"; {_latest(evidence)} had come {_way(gain)}{_on(gain)}"
        return (
            f"Nothing was gained: the guard dropped {which}, and the model is as it was{reached}."
        )
    if gain is None:
        return "What was gained is not known: no held-out instructions were measured."
    moved = gain.after - gain.before
    word = "rose" if moved > 0 else "fell" if moved < 0 else "stayed: it came"
    several = f" over {evidence.kept} kept phases" if evidence.kept > 1 else ""
    return (
        f"Strict adherence {word} {_way(gain)}{_ends(gain, evidence.confidence)}"
        f"{_on(gain)}{several}{_at_strengths(evidence)}."
    )


def _at_strengths(evidence: Evidence) -> str:
    """That phases were kept in part, since all of what they trained does harm."""
    if not evidence.parts:
        return ""
    what = "what was trained is" if evidence.kept == 1 else f"{len(evidence.parts)} of these are"
    named = " and ".join(in_words(share) for share in sorted(set(evidence.parts), reverse=True))
    return f"; {what} kept at {named}, since the whole does harm"


def _latest(evidence: Evidence) -> str:
    return "the phase" if evidence.ended == 1 else "the latest phase"


def _way(gain: Gain) -> str:
    return f"from {gain.before:.3f} to {gain.after:.3f}"


def _on(gain: Gain) -> str:
    count = "" if gain.rows is None else f"{gain.rows} "
    if gain.on == "guard":
        return f", on {count}instructions that the guard decides by"
    return f", on {count}held-out instructions that decided nothing"


def _ends(gain: Gain, confidence: float) -> str:
    change = gain.change
    if change is None:
        return " (how sure that is was not recorded)"
    if change.low == change.high:
        return f" ({change.value:+.3f}; how sure that is was not asked)"
    ends = [
        f"at {word} {end:+.3f}"
        for word, end in (("least", change.low), ("most", change.high))
        if math.isfinite(end)
    ]
    sure = f"; with {confidence:.3g} confidence {' and '.join(ends)}" if ends else ""
    return f" ({change.value:+.3f}{sure})"


def _cost(evidence: Evidence) -> str:
    cost = evidence.cost
    if not evidence.ended:
        return "What it costs is not known yet."
    time = "a time that was not recorded" if cost.seconds is None else duration(cost.seconds)
    parts = list(_prices(cost))
    if evidence.kept:
        if cost.loss is None:
            parts.append("what became of all else was not measured")
        return f"It cost {time} in phases; {_listed(parts)}."
    would = f"; in {_latest(evidence)} {_listed(parts)}" if parts else ""
    return f"It cost {time} in phases, and nothing of the model{would}."


def _prices(cost: Cost) -> Iterator[str]:
    if cost.loss is not None:
        yield f"the probe loss {_moved_by(cost.loss, 4)} nats per token"
    if cost.kl is not None:
        # An estimate of it may be below 0, which the divergence itself never is.
        came = f"came to {cost.kl:.3f}" if cost.kl >= _LEAST_KL else f"was below {_LEAST_KL}"
        yield f"the forward KL {came} nats per token"
    for name, before, after in cost.moved:
        yield f"{name} went from {before:.3f} to {after:.3f}"
    if cost.facts is not None and cost.facts[1]:
        lost, known = cost.facts
        named = f" ({lost[0]})" if lost else ""
        yield f"{len(lost)} of {known} known facts were lost{named}"


def _moved_by(change: float, digits: int) -> str:
    return f"{'rose' if change >= 0 else 'fell'} by {abs(change):.{digits}f}"


def _advice(evidence: Evidence) -> tuple[Advice, str]:  # noqa: PLR0911  one line per case
    gain, cost = evidence.gain, evidence.cost
    if not evidence.ended:
        return "not enough evidence", "a phase has to end first"
    if not evidence.kept:
        if CHANCE in evidence.reason:
            return (
                "not enough evidence",
                f"{evidence.reason}; give the guard more rows, or train on",
            )
        return "do not ship", f"the guard dropped {_latest(evidence)}, since {evidence.reason}"
    if gain is None:
        return "not enough evidence", "nothing says whether instructions are followed better"
    if gain.change is not None and gain.change.high < 0.0:
        return "do not ship", f"fewer instructions are followed than before{_on(gain)}"
    if gain.after <= gain.before:
        return "not enough evidence", f"the guard kept it, but nothing was gained{_on(gain)}"
    if cost.loss is None or not math.isfinite(cost.loss):
        return "not enough evidence", "the gain is there, but what it cost was not measured"
    if cost.loss_limit is not None and cost.loss > cost.loss_limit:
        return (
            "not enough evidence",
            f"the probe loss rose by {cost.loss:.4f} in all, more than the {cost.loss_limit:.4f} "
            "that the guard allows one phase; look at the rest of what the model does first",
        )
    # Where both ends are the value, nobody asked how sure it is.
    is_sure = gain.change is not None and gain.change.high > gain.change.low > 0.0
    if not is_sure and not gain.sure_by_guard:
        unasked = "" if gain.sure_by_guard is not None else ", of which the guard was not asked"
        more = "guard.confidence, guard.report_rows" if unasked else "guard.report_rows, guard.rows"
        return (
            "not enough evidence",
            f"the gain may be chance{unasked}; measure on more instructions ({more})",
        )
    return "ship", _why(evidence, is_sure)


def _why(evidence: Evidence, is_sure: bool) -> str:
    """The reason to ship, and what to look at before."""
    why = (
        "the gain is more than chance" if is_sure else "by all checks the gain is more than chance"
    )
    why += ", and no harm that was measured is beyond its limit"
    if evidence.cost.facts is not None and evidence.cost.facts[0]:
        why += "; ask for the lost facts first"
    if evidence.cost.wires is not None:
        before, after = evidence.cost.wires
        why += (
            f"; first read answers that trip a wire (their share rose from {before:.3f} to "
            f"{after:.3f})"
        )
    return why


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
