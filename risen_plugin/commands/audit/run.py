"""Run the checks of an audit on one reward."""

from __future__ import annotations

import functools
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
    passes_at: float = 1.0,
    slow_s: float = 0.1,
    quick: bool = False,
    clock: Clock = time.perf_counter,
) -> Subject:
    """Get a reward ready for ``CHECKS``.

    :param rows: rows, or a mapping of columns without a prompt that go into every instruction.
    :param source: how to make the reward again in another process.
    :param passes_at: the score from which an answer counts as accepted.
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
        passes_at,
        slow_s,
        options or {},
        quick,
    )
    _find_form(subject)
    return subject


def _find_form(subject: Subject) -> None:
    row = subject.instructions[0].row
    items = [Item(row, text) for text in ("We left early.", *subject.instructions[0].right)]
    fault = subject.caller.choose_form(items)
    if fault is not None:
        raise DataError(
            f"{subject.label} raises on every answer: {fault}; if it reads a column, "
            "give that with --column or --columns"
        )


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
    )


def run_check(subject: Subject, name: str) -> Check:
    """Run one check of ``CHECKS``."""
    began = time.perf_counter()
    return replace(CHECKS[name](subject), time_s=time.perf_counter() - began)
