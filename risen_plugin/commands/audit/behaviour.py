"""Whether a reward holds to its contract: the same score for the same answer in any batch.

Each check calls the reward on a mix of right, wrong and degenerate answers. A fault that belongs to
another check (a crash, a wrong number of scores) is left to that one.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pickle
import random
from collections.abc import Callable, Sequence

from risen_plugin.commands.audit.acceptance import discriminates
from risen_plugin.commands.audit.calling import CallResult, Form, Item, arguments, read
from risen_plugin.commands.audit.elsewhere import in_another_process
from risen_plugin.commands.audit.empty_answers import degenerate
from risen_plugin.commands.audit.material import IDS
from risen_plugin.commands.audit.report import Check, short
from risen_plugin.commands.audit.subject import Subject
from risen_plugin.errors import typed_line

REPEATS = 4
_CRASHING = ("crash", "count")


def survives(subject: Subject) -> Check:
    """No answer makes the reward raise: empty, blank, very long, not Latin, odd."""
    row = subject.instructions[0].row
    odd = ["\x00", "\ud83d", "{}%s{0}", "\\", "(", "👩‍👩‍👧" * 50, "1e999"]
    subject.outcomes([(row, text) for text in odd])
    subject.outcomes([(row, text) for text in degenerate("empty", "")])
    discriminates(subject)
    crashed = [(i, o) for i, o in subject.caller.seen if o.fault == "crash"]
    if not crashed:
        declined = sum(o.fault == "declined" for _, o in subject.caller.seen)
        return Check("crash", "note" if declined else "ok", f"{declined} declined" * bool(declined))
    item, outcome = crashed[0]
    total = len(subject.caller.seen)
    seen = f"{len(crashed)} of {total} raise: {short(item.answer, 24)} {outcome.why}"
    return Check("crash", "fail", seen)


def gives_numbers(subject: Subject) -> Check:
    """Each score is a finite number or None; no text, no NaN, no truth value."""
    discriminates(subject)
    wrong = [(i, o) for i, o in subject.caller.seen if o.fault == "number"]
    if wrong:
        item, outcome = wrong[0]
        return Check("number", "fail", f"scores {short(item.answer, 24)} {short(outcome.raw)}")
    if any(isinstance(outcome.raw, bool) for _, outcome in subject.caller.seen):
        return Check("number", "note", "gives True and False, which train as 1 and 0; give floats")
    return Check("number", "ok")


def gives_one_each(subject: Subject) -> Check:
    """There are as many scores as answers, for batches of several sizes."""
    items = _mixed(subject)
    for batch in (items[:1], items[:2], items[:7], items, items[:1] * 3):
        if (outcome := _called(subject, batch)[0]).fault == "count":
            return Check("count", "fail", outcome.why)
    return Check("count", "ok")


def repeats_itself(subject: Subject) -> Check:
    """The same batch gets the same scores, whatever the global random state."""
    items = _mixed(subject)
    first = _called(subject, items)
    before = random.getstate()
    try:
        for seed in range(2 if subject.quick else REPEATS):
            random.seed(seed)
            if check := _differs("repeat", items, first, _called(subject, items), "then"):
                return check
    finally:
        random.setstate(before)
    return Check("repeat", "ok")


def agrees_across_processes(subject: Subject) -> Check:
    """Other processes, with other hash seeds, give the same scores."""
    items = _mixed(subject)
    first = _called(subject, items)
    for seed in (1,) if subject.quick else (1, 2):
        scores = in_another_process(subject.caller, subject.source, items, hash_seed=seed)
        if isinstance(scores, str):
            return Check("process", "skip" if subject.source is None else "fail", scores)
        if check := _differs("process", items, first, scores, "in another process"):
            return check
    return Check("process", "ok")


def ignores_order(subject: Subject) -> Check:
    """A batch in another order gets the same scores in that order."""
    items = _mixed(subject)
    first = _called(subject, items)
    for order in (list(reversed(range(len(items)))), _shuffled(len(items))):
        moved = _called(subject, [items[index] for index in order])
        back: list[CallResult] = list(first)
        for position, index in enumerate(order):
            back[index] = moved[position]
        if check := _differs("order", items, first, back, "in another order"):
            return check
    return Check("order", "ok")


def scores_equals_equally(subject: Subject) -> Check:
    """In a batch with every answer twice, both score alike, and as without the other."""
    items = _mixed(subject)
    first = _called(subject, items)
    double = _called(subject, [item for item in items for _ in range(2)])
    for twin in (double[::2], double[1::2]):
        if check := _differs("duplicates", items, first, twin, "beside its like"):
            return check
    return Check("duplicates", "ok")


def ignores_neighbours(subject: Subject) -> Check:
    """An answer gets the same score alone as in a batch."""
    items = _mixed(subject)[: 16 if subject.quick else 32]
    first = _called(subject, items)
    alone = [_called(subject, [item])[0] for item in items]
    return _differs("neighbours", items, first, alone, "alone") or Check("neighbours", "ok")


def leaves_its_input_alone(subject: Subject) -> Check:
    """The reward changes none of the passed lists, since the next reward gets the same ones."""
    forms: tuple[Form, ...] = ("plain", "chat")
    for form in forms if _takes(subject, _other(subject.caller.form)) else (subject.caller.form,):
        passed = arguments(_mixed(subject), form)
        before = copy.deepcopy(passed)
        with contextlib.suppress(Exception):  # another check reports it; only changes count here
            subject.caller.pass_on(passed)
        changed = [name for name in before if passed.get(name, None) != before[name]]
        if changed:
            return Check("mutation", "fail", f"changes {', '.join(changed)} ({form})")
    return Check("mutation", "ok")


def reads_chat_and_plain(subject: Subject) -> Check:
    """An answer scores the same as text and as a chat message."""
    items = _mixed(subject)
    other = _other(subject.caller.form)
    if not _takes(subject, other):
        return Check("chat", "note", f"takes only {subject.caller.form} answers; use text_of")
    first = _called(subject, items)
    second = _called(subject, items, other)
    return _differs("chat", items, first, second, f"as {other}") or Check("chat", "ok")


def swallows_columns(subject: Subject) -> Check:
    """The reward accepts columns of other rewards."""
    items = _mixed(subject)
    try:
        scores = subject.caller.raw(items, a_column_of_another_reward=[1] * len(items))
    except Exception as error:  # noqa: BLE001  a stranger's reward may raise anything
        return Check("columns", "fail", f"an unknown column: {typed_line(error)}")
    first, second = _called(subject, items), read(scores, len(items))
    difference = _differs("columns", items, first, second, "with an unknown column")
    return difference or Check("columns", "ok")


def pickles(subject: Subject) -> Check:
    """The reward can be pickled and scores the same afterwards."""
    items = _mixed(subject)
    first = _called(subject, items)
    try:
        reward = pickle.loads(pickle.dumps(subject.caller.reward))
    except Exception as error:  # noqa: BLE001  pickling runs the object's own code
        return Check("pickle", "fail", typed_line(error))
    caller = dataclasses.replace(subject.caller, reward=reward)
    twin = _settled(lambda: caller.raw(items), len(items))
    return _differs("pickle", items, first, twin, "after pickling") or Check("pickle", "ok")


def refuses_bad_rows(subject: Subject) -> Check:
    """An unknown constraint and wrong kwargs are refused, and never pass.

    Only for a reward that reads constraint rows.
    """
    if not subject.reads_constraints:
        return Check("rows", "skip")
    row = dict(next(one.row for one in subject.instructions if one.reads_constraints))
    bad = {
        "an unknown id": (["no_family:no_such_constraint"], [{}]),
        "a kwarg of a wrong type": (
            ["length_constraints:number_words"],
            [{"num_words": "many", "relation": "at least"}],
        ),
        "a missing kwarg": (["length_constraints:number_words"], [{"relation": "at least"}]),
        "an unknown kwarg": (["punctuation:no_comma"], [{"number": 3}]),
        "fewer kwargs than ids": (["punctuation:no_comma", "detectable_format:title"], [{}]),
        "an id that is no text": ([7], [{}]),
    }
    passed, silent = [], []
    for name, (ids, kwargs) in bad.items():
        item = Item({**row, IDS: ids, "kwargs": kwargs}, "<<Title>> We left early.")
        outcome = _called(subject, [item])[0]
        if subject.accepts(outcome):
            passed.append(name)
        elif outcome.score is not None:
            silent.append(name)
    if passed:
        return Check("rows", "fail", f"passes with {', '.join(passed)}", len(passed), len(bad))
    if silent:
        seen = f"scores low, without a word: {', '.join(silent)}"
        return Check("rows", "note", seen, 0, len(bad))
    return Check("rows", "ok", "", 0, len(bad))


def _mixed(subject: Subject) -> list[Item]:
    return subject.mixed(24 if subject.quick else 48)


def _called(subject: Subject, items: Sequence[Item], form: Form | None = None) -> list[CallResult]:
    return _settled(lambda: subject.caller.raw(items, form), len(items))


def _settled(call: Callable[[], object], count: int) -> list[CallResult]:
    try:
        return read(call(), count)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  a stranger's reward may raise anything
        return [CallResult(None, "crash", typed_line(error))] * count


def _takes(subject: Subject, form: Form) -> bool:
    [first, *_] = _called(subject, _mixed(subject)[:4], form)
    return first.fault not in _CRASHING


def _other(form: Form) -> Form:
    return "chat" if form == "plain" else "plain"


def _shuffled(count: int) -> list[int]:
    order = list(range(count))
    random.Random(0).shuffle(order)
    return order


def _differs(
    name: str,
    items: Sequence[Item],
    first: Sequence[CallResult],
    second: Sequence[CallResult],
    how: str,
) -> Check | None:
    """The failed check if an answer has two outcomes; None if all agree."""
    pairs = list(zip(items, first, second, strict=True))
    differ = [(i, a, b) for i, a, b in pairs if _key(a) != _key(b)]
    if not differ:
        return None
    item, a, b = differ[0]
    scores = f"{_score_text(a)}, {how} {_score_text(b)}"
    seen = f"{len(differ)} of {len(pairs)}: {short(item.answer, 30)} {scores}"
    return Check(name, "fail", seen)


def _key(outcome: CallResult) -> str | float | None:
    return outcome.fault or outcome.score


def _score_text(outcome: CallResult) -> str:
    if outcome.fault:
        return outcome.why if outcome.fault in _CRASHING else short(outcome.raw, 16)
    return "None" if outcome.score is None else f"{outcome.score:g}"
