"""Score answers with the scorer of the task that asked."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from risen_plugin.contracts import Failed, text_of
from risen_reasoning_gym import catalogue
from risen_reasoning_gym.answers import answer_of, may_be_scored
from risen_reasoning_gym.entries import Entry, read
from risen_reasoning_gym.isolation import isolated


@dataclass(frozen=True)
class TaskScore:
    r"""The score that a task of reasoning-gym gives to the answer; abstains on all other rows.

    The answer is the text between the last ``<answer>`` and ``</answer>``; without them the content
    of the last ``\boxed{}``, and without that the last line. A completion without an answer scores
    0.0. Where a scorer raises, that completion alone is ``Failed``.

    :param partial: False gives 0.0 for every score below 1.0; some tasks give a little for form.
    """

    partial: bool = True

    def __call__(
        self, *, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        texts = columns.get("entry") or [None] * len(completions)
        return [
            self._score(text_of(completion), read(text))
            for completion, text in zip(completions, texts, strict=True)
        ]

    def _score(self, completion: str, entry: Entry | None) -> float | None:
        if entry is None:
            return None
        answer = answer_of(completion)
        if not answer or not may_be_scored(entry.task, answer, entry.item.get("answer")):
            return 0.0
        try:
            score = _scored(entry, answer)
        except Exception as error:  # noqa: BLE001  a scorer breaks in its own ways on odd answers
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return Failed(f"the scorer of '{entry.task}' raised {reason:.200}")
        if not isinstance(score, Real) or not math.isfinite(score):
            return Failed(f"the scorer of '{entry.task}' gave {score!r:.60}")
        number = float(score)
        return number if self.partial or number >= 1 else 0.0


def _scored(entry: Entry, answer: str) -> Any:
    with isolated(0):
        scorer = catalogue.dataset(entry.task, json.dumps(dict(entry.config)), entry.level, 0)
        return scorer.score_answer(answer, dict(entry.item))
