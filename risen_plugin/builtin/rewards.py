"""The rewards that come with risen-plugin: exact, regex, length and constraints.

Each is called as TRL calls a reward function and takes text or chat. A blank answer never scores.
Their option ``strip_thinking`` leaves thinking sections out of account.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from risen_plugin.constraints.core import RULES, Rules
from risen_plugin.constraints.judging import asked_of, check_all, check_rules
from risen_plugin.contracts import (
    Completion,
    Failed,
    Prompt,
    Row,
    is_blank,
    text_of,
    without_thinking,
)
from risen_plugin.errors import DataError, near_miss
from risen_plugin.hookspecs import Register, hookimpl


@dataclass(frozen=True)
class Exact:
    """1.0 for an answer equal to the row's reference, else 0.0; abstains where there is none.

    :param column: the column with the reference, a text or a number.
    :param normalize: whether case and the white space around and between words are ignored.
    :param strip_thinking: whether thinking sections are taken off the answer.
    """

    column: str = "answer"
    normalize: bool = True
    strip_thinking: bool = False

    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", (self.column,))

    def __call__(
        self, *, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        references = _column(columns, self.column, completions)
        return [
            self._score(_text(completion, self.strip_thinking), reference, row)
            for row, (completion, reference) in enumerate(
                zip(completions, references, strict=True), start=1
            )
        ]

    def _score(self, text: str, reference: object, row: int) -> float | None:
        if reference is None:
            return None
        if not isinstance(reference, str | int | float):
            raise DataError(
                f"row {row} of the batch: column '{self.column}' must be a text or a number, "
                f"not {type(reference).__name__}"
            )
        if not str(reference).strip():
            return None
        return float(self._normal(text) == self._normal(str(reference)))

    def _normal(self, text: str) -> str:
        return " ".join(text.casefold().split()) if self.normalize else text


@dataclass(frozen=True)
class Regex:
    """1.0 for an answer in which the pattern is found, else 0.0.

    :param pattern: a Python regular expression; flags go inside it, such as ``(?i)``.
    :param must_match: False scores the reverse: 1.0 where the pattern is not found.
    :param full: whether the pattern must cover the whole answer, white space around it apart.
    :param strip_thinking: whether thinking sections are taken off the answer.
    :param limit_s: seconds that the search in one answer may take; beyond them the answer cannot be
        judged, which is an error and no zero. A pattern such as ``(a+)+$`` would never end.
    :raises ValueError: if the pattern is no regular expression.
    """

    pattern: str
    must_match: bool = True
    full: bool = False
    strip_thinking: bool = False
    limit_s: float = 1.0

    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"pattern {self.pattern!r} is no regular expression: {error}"
            ) from error
        if not self.limit_s > 0:
            raise ValueError(f"limit_s must be above 0, not {self.limit_s!r}")

    def __call__(
        self, *, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        # Python's own engine cannot be stopped, and lets no other thread run.
        regex: Any = importlib.import_module("regex")
        pattern = regex.compile(self.pattern)
        find = pattern.fullmatch if self.full else pattern.search
        texts = (_text(completion, self.strip_thinking) for completion in completions)
        return [self._score(text.strip(), find) for text in texts]

    def _score(self, text: str, find: Callable[..., object]) -> float:
        if is_blank(text):
            return 0.0
        try:
            found = find(text, timeout=self.limit_s, concurrent=True)
        except TimeoutError:
            return Failed(f"the pattern was searched for longer than limit_s = {self.limit_s:g}")
        return float((found is not None) == self.must_match)


@dataclass(frozen=True)
class Length:
    """1.0 inside ``low..high`` words, falling linearly to 0.0 over ``slack`` words outside.

    :param low: the fewest words, as white space separates them.
    :param high: the most words.
    :param slack: words beyond either end at which the score reaches 0.0; 0 for a hard edge.
    :param strip_thinking: whether thinking sections are taken off the answer.
    :raises ValueError: if the numbers make no band.
    """

    low: int
    high: int
    slack: int = 10
    strip_thinking: bool = False

    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.low < 0 or self.high < 1 or self.slack < 0:
            raise ValueError("low and slack must be at least 0, and high at least 1")
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not be above high ({self.high})")

    def __call__(
        self, *, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        return [
            self._score(sum(not is_blank(word) for word in text.split()))
            for text in (_text(completion, self.strip_thinking) for completion in completions)
        ]

    def _score(self, words: int) -> float:
        if words == 0:
            return 0.0
        outside = max(self.low - words, words - self.high, 0)
        if outside == 0:
            return 1.0
        return max(0.0, 1.0 - outside / self.slack) if self.slack else 0.0


@dataclass(frozen=True)
class Constraints:
    """The share of the row's constraints that the answer meets; abstains where there are none.

    :param partial: False gives 1.0 when all of them are met and 0.0 otherwise.
    :param strip_thinking: whether thinking sections are taken off the answer.
    :param rules: ``risen``, or ``ifeval`` for the verdicts of IFEval itself, by which published
        numbers are counted; they accept more that was not asked for, and are no rules to train on.
    :raises ValueError: if ``rules`` is neither.
    :raises ConfigError: if IFEval's verdicts need a package that is not installed.
    """

    partial: bool = True
    strip_thinking: bool = False
    rules: Rules = "risen"

    needs: ClassVar[tuple[str, ...]] = ("instruction_id_list", "kwargs")

    def __post_init__(self) -> None:
        if self.rules not in RULES:
            raise ValueError(f"rules must be {' or '.join(RULES)}, not {self.rules!r}")
        check_rules(self.rules)

    def __call__(
        self, *, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        ids = _column(columns, "instruction_id_list", completions)
        kwargs = _column(columns, "kwargs", completions)
        return [
            self._score(row, *values)
            for row, values in enumerate(
                zip(prompts, completions, ids, kwargs, strict=True), start=1
            )
        ]

    def check_row(self, row: Row) -> None:
        """Refuse a row whose constraints are unknown or wrong, before any answer to it is scored.

        :raises DataError: naming the constraint or kwarg.
        """
        ids = row.get("instruction_id_list")
        if ids:
            check_all("", ids, row.get("kwargs"), asked_of(row["prompt"]), rules=self.rules)

    def _score(
        self, row: int, prompt: Prompt, completion: Completion, ids: Any, kwargs: Any
    ) -> float | None:
        if ids is None or (isinstance(ids, Sequence) and not ids):
            return None
        try:
            text = _text(completion, self.strip_thinking)
            met = check_all(text, ids, kwargs, asked_of(prompt), rules=self.rules)
        except DataError as error:
            raise DataError(f"row {row} of the batch: {error}") from error
        return sum(met) / len(met) if self.partial else float(all(met))


def _text(completion: Completion, strip_thinking: bool) -> str:
    return text_of(without_thinking(completion) if strip_thinking else completion)


def _column(columns: dict[str, Any], name: str, completions: Sequence[Completion]) -> Any:
    if name not in columns:
        raise DataError(
            f"the rows have no column '{name}'{near_miss(name, columns)}; "
            f"they have: {', '.join(sorted(columns)) or 'none'}"
        )
    values = columns[name]
    if len(values) != len(completions):
        raise DataError(
            f"there are {len(completions)} completions but {len(values)} values of the column "
            f"'{name}'"
        )
    return values


@hookimpl
def risen_register_rewards(register: Register) -> None:
    """Offer the rewards of this module."""
    register("exact", Exact)
    register("regex", Regex)
    register("length", Length)
    register("constraints", Constraints)
