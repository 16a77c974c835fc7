"""The rewards that come with risen-plugin: exact, regex, length and constraints.

Each is called as TRL calls a reward function and takes text or chat. A blank answer never scores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from risen_plugin.constraints.judging import asked_of, check_all
from risen_plugin.contracts import Completion, Prompt, Row, is_blank, text_of
from risen_plugin.errors import DataError, near_miss
from risen_plugin.hookspecs import Register, hookimpl


@dataclass(frozen=True)
class Exact:
    """1.0 for an answer equal to the row's reference, else 0.0; abstains where there is none.

    :param column: the column with the reference, a text or a number.
    :param normalize: whether case and the white space around and between words are ignored.
    """

    column: str = "answer"
    normalize: bool = True

    needs: ClassVar[tuple[str, ...]] = ("answer",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", (self.column,))

    def __call__(
        self, *, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        references = _column(columns, self.column, completions)
        return [
            self._score(text_of(completion), reference, row)
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
    :raises ValueError: if the pattern is no regular expression.
    """

    pattern: str
    must_match: bool = True
    full: bool = False

    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"pattern {self.pattern!r} is no regular expression: {error}"
            ) from error

    def __call__(
        self, *, prompts: Sequence[Prompt], completions: Sequence[Completion], **columns: Any
    ) -> list[float | None]:
        return [self._score(text_of(completion)) for completion in completions]

    def _score(self, text: str) -> float:
        text = text.strip()
        if is_blank(text):
            return 0.0
        match = re.fullmatch(self.pattern, text) if self.full else re.search(self.pattern, text)
        return float((match is not None) == self.must_match)


@dataclass(frozen=True)
class Length:
    """1.0 inside ``low..high`` words, falling linearly to 0.0 over ``slack`` words outside.

    :param low: the fewest words, as white space separates them.
    :param high: the most words.
    :param slack: words beyond either end at which the score reaches 0.0; 0 for a hard edge.
    :raises ValueError: if the numbers make no band.
    """

    low: int
    high: int
    slack: int = 10

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
            self._score(sum(not is_blank(word) for word in text_of(completion).split()))
            for completion in completions
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
    """

    partial: bool = True

    needs: ClassVar[tuple[str, ...]] = ("instruction_id_list", "kwargs")

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
            check_all("", ids, row.get("kwargs"), asked_of(row["prompt"]))

    def _score(
        self, row: int, prompt: Prompt, completion: Completion, ids: Any, kwargs: Any
    ) -> float | None:
        if ids is None or (isinstance(ids, Sequence) and not ids):
            return None
        try:
            met = check_all(text_of(completion), ids, kwargs, asked_of(prompt))
        except DataError as error:
            raise DataError(f"row {row} of the batch: {error}") from error
        return sum(met) / len(met) if self.partial else float(all(met))


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
