"""Run the checks of an audit on one reward."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias

from risen_plugin.commands.audit import acceptance, behaviour, timing
from risen_plugin.commands.audit.calling import Caller, Clock, Item
from risen_plugin.commands.audit.elsewhere import Source
from risen_plugin.commands.audit.empty_answers import FAMILIES
from risen_plugin.commands.audit.material import instructions
from risen_plugin.commands.audit.report import Check, Report
from risen_plugin.commands.audit.subject import Subject, needs_of
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, DataError, near_miss

Checking: TypeAlias = Callable[[Subject], Check]
_WORDS = "The wind was fair, and we left early in the morning. "
_LONG = _WORDS * 400  # longer than the answers of most runs

CHECKS: Mapping[str, Checking] = MappingProxyType(
    {
        "growth": timing.growth,  # first: the others pass long texts
        "time": timing.time_per_answer,
        **{
            family: functools.partial(acceptance.says_nothing, family=family) for family in FAMILIES
        },
        "wrong": acceptance.near_misses,
        "substring": acceptance.parts_of_words,
        "right": acceptance.right_answers,
        "constant": acceptance.discriminates,
        "writing": acceptance.ways_of_writing,
        "thinking": acceptance.thought_only,
        "crash": behaviour.survives,
        "number": behaviour.gives_numbers,
        "count": behaviour.gives_one_each,
        "repeat": behaviour.repeats_itself,
        "process": behaviour.agrees_across_processes,
        "order": behaviour.ignores_order,
        "duplicates": behaviour.scores_equals_equally,
        "neighbours": behaviour.ignores_neighbours,
        "mutation": behaviour.leaves_its_input_alone,
        "chat": behaviour.reads_chat_and_plain,
        "columns": behaviour.swallows_columns,
        "pickle": behaviour.pickles,
        "rows": behaviour.refuses_bad_rows,
    }
)
"""Every check by its name in a report and in ``allow``, in the order of the report."""


def subject_of(
    reward: Callable[..., Any],
    label: str = "",
    *,
    rows: Sequence[Row] = (),
    source: Source | None = None,
    options: Mapping[str, Any] | None = None,
    passes_at: float | None = None,
    slow_s: float = 0.1,
    quick: bool = False,
    clock: Clock = time.perf_counter,
) -> Subject:
    """Get a reward ready for ``CHECKS``.

    :param rows: rows, or a mapping of columns without a prompt that go into every instruction.
    :param source: how to make the reward again in another process.
    :param passes_at: the score from which an answer counts as accepted; None takes 1.0, or 0.0 for
        a reward that only punishes.
    :param slow_s: seconds per answer from which a reward counts as slow.
    :param clock: seconds; for tests.
    :raises DataError: if a column that it needs is missing, or it raises on every answer.
    """
    label = label or f"reward '{getattr(reward, '__name__', type(reward).__name__)}'"
    needs = needs_of(reward)
    made = instructions(needs, rows, label, quick=quick)
    subject = Subject(
        label,
        Caller(reward, clock=clock),
        made,
        needs,
        source,
        1.0 if passes_at is None else passes_at,
        slow_s,
        options or {},
        quick,
    )
    _find_form(subject)
    if passes_at is None and _only_punishes(subject):
        subject.passes_at, subject.is_penalty = 0.0, True
    return subject


def _find_form(subject: Subject) -> None:
    row = subject.instructions[0].row
    items = [Item(row, text) for text in ("We left early.", *subject.instructions[0].right)]
    fault = subject.caller.choose_form(items)
    if fault is not None:
        raise DataError(f"{subject.label} raises on every answer: {fault}{_column_hint(fault)}")


def _column_hint(fault: str) -> str:
    """What to give to a reward that ends in ``fault``, where a column may be what it lacks."""
    lacking = re.match(r"KeyError: '(\w+)'$", fault)
    if lacking:
        column = lacking[1]
        return f"; if that is a column, give it with --column '{column}=...' or --columns FILE"
    if fault.startswith(("TypeError", "AttributeError", "IndexError", "ValueError")):
        return "; if it reads a column, give that with --column or --columns"
    return ""


def _only_punishes(subject: Subject) -> bool:
    """Whether no answer scores above 0, and some below."""
    row = subject.instructions[0].row
    items = [*subject.mixed(32), *(Item(row, text) for text in (_WORDS * 8, "p " * 64, _LONG))]
    scores = [outcome.score for outcome in subject.caller.outcomes(items)]
    known = [score for score in scores if score is not None]
    return bool(known) and max(known) == 0 > min(known)


def audit(
    subject: Subject, *, allow: Iterable[str] = (), watch: Callable[[str], None] | None = None
) -> Report:
    """Run every check.

    :param allow: names of checks that may fail.
    :param watch: called with the name of each check before it runs.
    :raises ConfigError: if ``allow`` names no check.
    """
    allowed = set(allow)
    for name in sorted(allowed):
        if name not in CHECKS:
            raise ConfigError(
                f"there is no check '{name}' to allow{near_miss(name, CHECKS) or '.'} "
                f"There are: {', '.join(CHECKS)}"
            )
    began = time.perf_counter()
    done: list[Check] = []
    for name in CHECKS:
        if watch is not None:
            watch(name)
        check = run_check(subject, name)
        if check.verdict == "fail" and name in allowed:
            check = replace(check, verdict="allowed")
        done.append(check)
    return Report(
        subject.label,
        done,
        len(subject.instructions),
        subject.caller.scored,
        subject.passes_at,
        time.perf_counter() - began,
        subject.is_penalty,
    )


def run_check(subject: Subject, name: str) -> Check:
    """Run one check of ``CHECKS``."""
    began = time.perf_counter()
    return replace(CHECKS[name](subject), time_s=time.perf_counter() - began)
