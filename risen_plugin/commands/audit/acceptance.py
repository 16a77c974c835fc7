"""Whether a reward accepts answers that cannot be right.

An answer cannot be right if it is invisible, if its verdict is known to be wrong, or if the reward
accepts it but refuses ordinary text of the same shape: then the reward is for saying nothing. A
reward that accepts both goes by the shape; that is a note, since it may be intended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from risen_plugin.commands.audit.calling import CallResult
from risen_plugin.commands.audit.empty_answers import (
    BLANK,
    CLAIM,
    FAMILIES,
    SAME_TO_ALL,
    control,
    degenerate,
    disguised,
    inside_words,
    thinking,
    variants,
)
from risen_plugin.commands.audit.material import Instruction
from risen_plugin.commands.audit.report import GIVE_ONE, NOTHING_PASSED, Check, short
from risen_plugin.commands.audit.subject import Subject, held_words
from risen_plugin.contracts import Row, is_blank

_OF_THE_PROMPT = ("echo", "stuffing")


@dataclass(frozen=True)
class _Probe:
    """An answer that says nothing, and ordinary text to compare it with if no verdict is known."""

    row: Row
    answer: str
    beside: str | None = None
    is_wrong: bool = True


def says_nothing(subject: Subject, family: str) -> Check:
    """The false-accept rate for one family of answers that say nothing."""
    probes = [p for one in subject.instructions for p in _probes(one, family)]
    return _judged(subject, family, probes)


def _probes(one: Instruction, family: str) -> list[_Probe]:
    row = one.strict_row if family in _OF_THE_PROMPT and one.strict_row else one.row
    if family in BLANK:
        return [_Probe(row, text) for text in degenerate(family, one.prompt)]
    if one.is_known:
        texts = [text.rstrip() + one.spoil for text in degenerate(family, one.prompt)]
        texts += one.stuffed if family == "stuffing" else ()
        return [_Probe(row, text) for text in texts if text not in one.right]
    return [
        _Probe(row, text, control(family, text), is_wrong=False)
        for text in degenerate(family, one.prompt)
    ]


def _judged(subject: Subject, name: str, probes: Sequence[_Probe]) -> Check:
    outcomes = subject.outcomes([(p.row, p.answer) for p in probes])
    open_ones = [
        p
        for p, outcome in zip(probes, outcomes, strict=True)
        if p.beside is not None and subject.accepts(outcome)
    ]
    besides = subject.outcomes([(p.row, p.beside or "") for p in open_ones])
    beside = dict(zip(map(id, open_ones), besides, strict=True))
    wrong: list[tuple[_Probe, CallResult]] = []
    by_shape: list[_Probe] = []
    for probe, outcome in zip(probes, outcomes, strict=True):
        if not subject.accepts(outcome):
            continue
        if subject.is_penalty:
            by_shape.append(probe)
        elif probe.is_wrong:
            wrong.append((probe, outcome))
        elif probe.beside is None or subject.accepts(beside[id(probe)]):
            by_shape.append(probe)
        else:
            wrong.append((probe, outcome))
    decided = len(probes) - len(by_shape)
    if wrong:
        probe, outcome = wrong[0]
        seen = f"scores {short(probe.answer)} {outcome.score:g}"
        if probe.beside is not None:
            seen += f", but not {short(probe.beside, 24)}"
        return Check(name, "fail", seen, len(wrong), decided)
    if by_shape:
        like = short(by_shape[0].answer, 26)
        seen = "is not punished: " if subject.is_penalty else "by design? accepts any text like "
        seen += like
        return Check(name, "note", seen, *((0, decided) if decided else ()))
    return Check(name, "ok", "", 0, decided)


def near_misses(subject: Subject) -> Check:
    """Whether the reward accepts nearly right answers."""
    probes = [_Probe(one.row, text) for one in subject.instructions for text in one.wrong]
    return _judged(subject, "wrong", probes) if probes else Check("wrong", "skip")


def parts_of_words(subject: Subject) -> Check:
    """Whether a word that is asked for is also found inside a longer word.

    Beside the known answers, it tries words of the reward and of its options with which an answer
    passes and without which it does not.
    """
    probes = [_Probe(one.row, text) for one in subject.instructions for text in one.inside]
    rows = [one.row for one in subject.instructions if not one.is_known]
    for row in rows[:1]:
        for word in held_words(subject.caller.reward, subject.options, [row]):
            for sentence in ("{}", "We saw {} there."):
                with_it, without = sentence.format(word), sentence.format(disguised(word))
                good, bad = subject.outcomes([(row, with_it), (row, without)])
                if subject.accepts(good) and not subject.accepts(bad):
                    probes += [_Probe(row, text) for text in inside_words(word)]
                    break
    if not probes:
        return Check("substring", "skip")
    return _judged(subject, "substring", probes)


def right_answers(subject: Subject) -> Check:
    """Whether right answers pass, where some are known."""
    asked = [(one, text) for one in subject.instructions for text in one.right]
    if not asked:
        return Check("right", "skip")
    outcomes = subject.outcomes([(one.row, text) for one, text in asked])
    refused = [
        (one, text, outcome)
        for (one, text), outcome in zip(asked, outcomes, strict=True)
        if not subject.accepts(outcome)
    ]
    if not refused:
        return Check("right", "ok", f"{len(asked)} right answers pass")
    one, text, outcome = refused[0]
    scored = "nothing" if outcome.score is None else f"{outcome.score:g}"
    seen = f"{len(refused)} of {len(asked)} right answers fail: {short(text)} scores {scored}"
    if not one.is_certain:
        seen = f"another format? {seen}"
    return Check("right", "fail" if one.is_certain else "note", seen)


def discriminates(subject: Subject) -> Check:
    """Whether the reward gives different answers different scores at all."""
    for family in FAMILIES:
        says_nothing(subject, family)
    parts_of_words(subject)
    right_answers(subject)
    ordinary = [
        (one.row, text)
        for one in subject.instructions
        for text in ("The wind was fair and we left early in the morning.", one.prompt, CLAIM * 9)
    ]
    subject.outcomes(ordinary)
    scored = [
        (item, outcome)
        for item, outcome in subject.caller.seen
        if not is_blank(item.answer) and outcome.fault is None
    ]
    scores = [outcome.score for _, outcome in scored if outcome.score is not None]
    if not scores:
        return Check("constant", "fail", f"scores none of {len(scored)} answers")
    passed = [outcome for _, outcome in scored if subject.accepts(outcome)]
    if len(passed) == len(scores):
        seen = f"accepts every one of {len(passed)} answers, whatever they say"
        return Check("constant", "fail", seen)
    if not any(subject.accepts(outcome) for _, outcome in subject.caller.seen):
        seen = f"{NOTHING_PASSED} (highest {max(scores):g})"
        return Check("constant", "fail", f"{seen}; {GIVE_ONE}")
    return Check("constant", "ok", f"scores from {min(scores):g} to {max(scores):g}")


def ways_of_writing(subject: Subject) -> Check:
    """The ways of writing a right answer that change the verdict; a note, never a fault."""
    changed: dict[str, str] = {}
    count = 0
    for one in subject.instructions:
        for text in one.right[:1]:
            [plain] = subject.outcomes([(one.row, text)])
            if not subject.accepts(plain):
                continue
            made = variants(text)
            names = [n for n in made if n in SAME_TO_ALL or not one.reads_constraints]
            count += len(names)
            outcomes = subject.outcomes([(one.row, made[name]) for name in names])
            for name, outcome in zip(names, outcomes, strict=True):
                if not subject.accepts(outcome):
                    changed.setdefault(name, text)
    if not count:
        return Check("writing", "skip")
    if not changed:
        return Check("writing", "ok", f"{count} ways of writing a right answer pass")
    return Check("writing", "note", f"a right answer fails with: {', '.join(changed)}")


def thought_only(subject: Subject) -> Check:
    """Whether a right answer counts that is only in a thinking section, with nothing after it."""
    if subject.is_penalty:
        return Check("thinking", "skip")
    asked = [
        (one.row, text)
        for one in subject.instructions
        for answer in (one.right[:1] or ("We left early in the morning.",))
        for text in thinking(answer)
    ]
    outcomes = subject.outcomes(asked)
    taken = [
        text for (_, text), outcome in zip(asked, outcomes, strict=True) if subject.accepts(outcome)
    ]
    if not taken:
        return Check("thinking", "ok", "an answer that is only thought does not pass")
    seen = f"{len(taken)} of {len(asked)} pass that are only thought: {short(taken[0], 28)}"
    return Check("thinking", "note", seen)
