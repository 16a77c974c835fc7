"""Decide whether an instruction is fit to train on, for every generator alike.

An instruction is valid if its constraints parse, agree with one another and can be met by an
answer that is built for them; if its query is neither blank nor too long; if it is no duplicate of
an earlier one; and if it overlaps with no evaluation file. Dropped rows are counted by reason.

>>> valid = Validity()
>>> row = {"prompt": "Why? No commas.", "query": "Why?",
...        "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
>>> valid.admit(row), valid.admit(row)
(True, False)
>>> str(valid.report)
'1 kept, 1 dropped (1 duplicate)'
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from risen_plugin.constraints import contradict, parse
from risen_plugin.constraints.made_to_order.construct import satisfying
from risen_plugin.contracts import Prompt, Row, text_of
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.instructions.validity.contamination import Decontamination
from risen_plugin.instructions.validity.dropped import FilterReport
from risen_plugin.instructions.validity.memory import SeenInstructions, SeenQueries, instruction_key

__all__ = [
    "Decontamination",
    "FilterReport",
    "SeenInstructions",
    "SeenQueries",
    "Validity",
    "fault_of_constraints",
    "ids_and_kwargs",
    "instruction_key",
]

TokenCount = Callable[[Prompt], int]


class Validity:
    """The filter with its memory and its report.

    :param longest: most characters of a prompt.
    :param most_tokens: most tokens of a prompt, as ``count_tokens`` counts them.
    :param count_tokens: tokens of a prompt, text or chat.
    :param against: evaluation files that nothing may overlap with.
    :param run: words of an overlap.
    :param near: the overlap of word pairs from which on a query is a near-duplicate; None looks
        for duplicates only.
    :param distinct: False lets duplicates through.
    :raises ConfigError: if a limit makes no sense.
    :raises DataError: if an evaluation file cannot be read.
    """

    def __init__(
        self,
        *,
        longest: int | None = None,
        most_tokens: int | None = None,
        count_tokens: TokenCount | None = None,
        against: Sequence[str] = (),
        run: int = 13,
        near: float | None = None,
        distinct: bool = True,
    ) -> None:
        if longest is not None and longest < 1:
            raise ConfigError(f"longest must be at least 1 character, not {longest}")
        if isinstance(against, str):
            raise ConfigError(f"against is {against!r}; it is a list of evaluation files")
        if near is not None and not 0 < near <= 1:
            raise ConfigError(f"near must be above 0 and at most 1, not {near}")
        if most_tokens is not None and count_tokens is None:
            raise ConfigError("most_tokens needs count_tokens")
        self.longest = longest
        self.most_tokens = most_tokens
        self.count_tokens = count_tokens
        self.distinct = distinct
        self.decontamination = Decontamination(against, run) if against else None
        self.report = FilterReport()
        self._instructions = SeenInstructions()
        self._queries = None if near is None else SeenQueries(near)

    def __len__(self) -> int:
        """How many instructions are remembered."""
        return len(self._instructions)

    def fault_of_query(self, query: str) -> str | None:
        """Why no instruction should be made of ``query``; None if nothing is wrong with it."""
        if not query.strip():
            return "empty"
        if self.longest is not None and len(query) > self.longest:
            return "too long"
        source = self.decontamination and self.decontamination.source_of(query)
        return f"overlaps with {source}" if source else None

    def fault_of(self, row: Row) -> str | None:
        """Why ``row`` is not valid, beside those admitted before; None if it is."""
        prompt, query = row["prompt"], query_of(row)
        ids, kwargs = ids_and_kwargs(row)
        if len(ids) != len(kwargs):
            return "not one kwargs per id"
        text = text_of(prompt)
        if self.longest is not None and len(text) > self.longest:
            return "too long"
        if (
            self.most_tokens is not None
            and self.count_tokens is not None
            and self.count_tokens(prompt) > self.most_tokens
        ):
            return "too many tokens"
        if self.distinct and self._key(row, query) in self._instructions:
            return "duplicate"
        return self.fault_of_query(query) or fault_of_constraints(row, query)

    def is_near(self, query: str) -> bool:
        """Whether a query that is remembered is near to ``query``; False without ``near``."""
        return self._queries is not None and self._queries.is_near(query)

    def admit(self, row: Row) -> bool:
        """Whether ``row`` is valid; it is counted, and remembered if it is."""
        fault = self.fault_of(row)
        if fault is not None:
            self.report.drop(fault, text_of(row["prompt"]))
            return False
        self.remember(row)
        return True

    def remember(self, row: Row) -> None:
        """Count ``row`` as valid, and remember it, without a check."""
        self.report.keep()
        if self.distinct:
            self._instructions.add(self._key(row, query_of(row)))

    def remember_query(self, query: str) -> None:
        """Remember ``query`` among those that new ones must not be near to."""
        if self._queries is not None:
            self._queries.add(query)

    @staticmethod
    def _key(row: Row, query: str) -> int:
        ids, kwargs = ids_and_kwargs(row)
        return instruction_key(query, ids, [values or {} for values in kwargs])

    def state_dict(self) -> dict[str, Any]:
        """The memory and the report as JSON values."""
        state = {"instructions": self._instructions.state_dict(), "report": self.report.as_dict()}
        if self._queries is not None:
            state["queries"] = self._queries.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self._instructions.load_state_dict(state["instructions"])
        self.report = FilterReport.from_dict(state["report"])
        if self._queries is not None:
            self._queries.load_state_dict(state.get("queries", {"queries": []}))


def query_of(row: Row) -> str:
    """The question alone: column ``query``, or the prompt where there is none."""
    return text_of(row.get("query") or row["prompt"])


def ids_and_kwargs(row: Row) -> tuple[list[str], list[Mapping[str, Any] | None]]:
    """Ids and kwargs of ``row``; both empty where it states none."""
    ids: list[str] = list(row.get("instruction_id_list") or ())
    kwargs = row.get("kwargs")
    return ids, [None] * len(ids) if kwargs is None else list(kwargs)


def fault_of_constraints(row: Row, query: str) -> str | None:
    """Why the constraints of ``row`` cannot be met together; None if they can."""
    ids, kwargs = ids_and_kwargs(row)
    try:
        constraints = [parse(id_, values, query) for id_, values in zip(ids, kwargs, strict=True)]
    except DataError:
        return "constraint that cannot be read"
    if any(contradict(a, b) for a, b in itertools.combinations(sorted(set(ids)), 2)):
        return "conflict"
    if constraints:
        key = instruction_key(query, ids, [values or {} for values in kwargs])
        if satisfying(constraints, random.Random(key), query) is None:
            return "no answer found"
    return None
