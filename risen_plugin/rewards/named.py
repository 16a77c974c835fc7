"""Wrap a reward under its configured name; it is called as TRL calls rewards.

The wrapper says whose the reward is when it fails, and refuses scores that would train silently on
nonsense. Time limits and the handling of errors are left to ``calling``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from risen_plugin.config.choices import Grading
from risen_plugin.errors import boundary
from risen_plugin.rewards.scores import Scores, check_scores

_FROM_TRL = frozenset(
    ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
)  # TRL hands these to every reward, whatever columns the rows have


class NamedReward:
    """A reward under its configured name; call it as TRL calls a reward function.

    :param label: whose reward it is, for messages.
    :param grading: how it counts; None for the defaults.
    """

    def __init__(
        self, reward: Callable[..., Any], name: str, label: str, grading: Grading | None = None
    ) -> None:
        self.reward = reward
        self.__name__ = name  # TRL logs rewards/<name>
        self.label = label
        self.grading = grading or Grading()

    def limit(self, timeout_s: float) -> None:
        """Give each call from now on so many seconds at the most."""
        self.grading = replace(self.grading, timeout_s=timeout_s)

    is_async = False

    @property
    def weight(self) -> float:
        """The weight in the sum that is reinforced."""
        return self.grading.weight

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that the reward needs: its ``needs``, and its arguments without a default."""
        names = getattr(self.reward, "needs", ())
        named = (names,) if isinstance(names, str) else tuple(names)
        return (*named, *(name for name in _asked_by_name(self.reward) if name not in named))

    def __call__(self, *, prompts: list[Any], completions: list[Any], **columns: Any) -> Scores:
        with boundary(self.label):
            scores = self.reward(prompts=prompts, completions=completions, **columns)
        return check_scores(scores, len(completions), self.label)


def _asked_by_name(reward: Callable[..., Any]) -> list[str]:
    """The columns that a reward function takes as arguments without a default."""
    try:
        parameters = inspect.signature(reward).parameters.values()
    except (TypeError, ValueError):  # a callable without a readable signature
        return []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind in by_name
        and parameter.default is inspect.Parameter.empty
        and parameter.name not in _FROM_TRL
    ]


class AsyncNamedReward(NamedReward):
    """The same for an ``async`` reward; those are awaited side by side."""

    is_async = True

    async def __call__(  # type: ignore[override]  # TRL asks which kind it is before calling
        self, *, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> Scores:
        with boundary(self.label):
            pending: Any = self.reward(prompts=prompts, completions=completions, **columns)
            scores = await pending
        return check_scores(scores, len(completions), self.label)


def wrap(
    reward: Callable[..., Any], name: str, label: str, grading: Grading | None = None
) -> NamedReward:
    """The wrapper that fits a plain or an ``async`` reward."""
    call = getattr(reward, "__call__", reward)  # noqa: B004 the bound method shows if it is async
    is_async = inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(call)
    return (AsyncNamedReward if is_async else NamedReward)(reward, name, label, grading)
