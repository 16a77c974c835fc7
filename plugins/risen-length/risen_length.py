"""Reward completions whose length falls in a band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from risen_plugin import Completion, hookimpl, is_blank, text_of
from risen_plugin.hookspecs import Register


@dataclass(frozen=True)
class LengthBand:
    """1.0 inside ``low..high`` words, falling linearly to 0.0 over ``slack`` words outside.

    :param low: fewest words of full score.
    :param high: most words of full score.
    :param slack: words outside the band at which the score reaches 0.
    """

    low: int
    high: int
    slack: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"0 <= low <= high does not hold for {self.low} and {self.high}")
        if self.slack < 1:
            raise ValueError(f"slack is {self.slack}, but must be at least 1")

    def __call__(self, *, completions: list[Completion], **columns: Any) -> list[float | None]:
        return [self.score(count_words(text_of(completion))) for completion in completions]

    def score(self, words: int) -> float:
        """The score of an answer of ``words`` words."""
        outside = max(self.low - words, words - self.high, 0)
        return max(0.0, 1.0 - outside / self.slack)


def count_words(text: str) -> int:
    """The number of words as white space separates them; invisible ones do not count."""
    return sum(not is_blank(word) for word in text.split())


@hookimpl
def risen_register_rewards(register: Register) -> None:
    register("length-band", LengthBand)
