"""Score the answers of a run's log by other rewards, and compare them with the logged scores."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from risen_plugin.commands.score.by_row import lacking, score_rows
from risen_plugin.commands.score.comparison import Comparison
from risen_plugin.commands.score.rows import Answer
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.record.rollouts import Rollout
from risen_plugin.rewards.calling import NamedReward
from risen_plugin.rewards.scores import Score

_LABELLED = re.compile(r"([\w-]+)=(.+)", re.DOTALL)


def labelled(rewards: Sequence[str]) -> dict[str, str]:
    """Each reward by its label: that of ``LABEL=REWARD``, else its name.

    >>> labelled(["constraints", "all=constraints", "mine.py:Short"])
    {'constraints': 'constraints', 'all': 'constraints', 'Short': 'mine.py:Short'}

    :raises ConfigError: if two have the same label.
    """
    named: dict[str, str] = {}
    for reward in rewards:
        match = _LABELLED.fullmatch(reward)
        label, text = match.groups() if match else (reward.rpartition(":")[2], reward)
        if label in named:
            raise ConfigError(
                f"two rewards are called '{label}'; give one a label, as in --rewards other={text}"
            )
        named[label] = text
    return named


def options_by_label(pairs: Sequence[str], labels: Sequence[str]) -> dict[str, list[str]]:
    """The ``name=value`` pairs of each reward; ``LABEL.name=value`` names the reward.

    >>> options_by_label(["all.partial=false", "short.low=2"], ["all", "short"])
    {'all': ['partial=false'], 'short': ['low=2']}

    :raises ConfigError: for a pair without a label, if there are several rewards.
    """
    sorted_out: dict[str, list[str]] = {label: [] for label in labels}
    for pair in pairs:
        whose = [label for label in labels if pair.partition("=")[0].startswith(f"{label}.")]
        if whose:
            label = max(whose, key=len)
            sorted_out[label].append(pair.removeprefix(f"{label}."))
        elif len(labels) == 1:
            sorted_out[labels[0]].append(pair)
        else:
            name = pair.partition("=")[0]
            hint = near_miss(name.partition(".")[0], labels) if "." in name else ""
            raise ConfigError(
                f"the option '{pair}' does not say whose it is{hint or '.'} Write LABEL.name=value "
                f"with one of the labels {', '.join(labels)}"
            )
    return sorted_out


def rescore(
    rollouts: Iterable[Rollout],
    rewards: Mapping[str, NamedReward],
    logged: Sequence[str],
    *,
    passes_at: float = 1.0,
    examples: int = 0,
    batch_size: int = 256,
    stop: bool = True,
    timeout_s: float | None = None,
) -> Comparison:
    """Compare ``rewards`` with each other and with the logged ones, over a stream of answers.

    :param rewards: by label.
    :param logged: names of the rewards that the answers were logged with.
    :param stop: raise at an answer that cannot be scored; False makes it an error's outcome.
    :param timeout_s: seconds that one call of a reward may take; None for no limit.
    :raises DataError: if there are no answers, or they lack a column that a reward needs; and with
        ``stop``, naming the row.
    """
    pending = iter(rollouts)
    first = next(pending, None)
    if first is None:
        raise DataError("there are no logged answers to compare rewards on")
    for reward in rewards.values():
        if reason := lacking(reward, _answer(0, first)):
            raise DataError(reason)
    stream, *inputs = itertools.tee(itertools.chain([first], pending), 1 + len(rewards))
    scored = [
        score_rows(
            reward,
            itertools.starmap(_answer, enumerate(answers, start=1)),
            batch_size=batch_size,
            stop=stop,
            judge=False,
            timeout_s=timeout_s,
        )
        for reward, answers in zip(rewards.values(), inputs, strict=True)
    ]
    comparison = Comparison(
        [*map(logged_label, logged), *rewards],
        passes_at=passes_at,
        examples=examples,
        new=list(rewards),
    )
    results_by_answer = zip(stream, *scored, strict=True)
    for _, group in itertools.groupby(
        results_by_answer, key=lambda one: (one[0].phase, one[0].group)
    ):
        members = list(group)
        outcomes = [
            _outcomes(rollout, dict(zip(rewards, (one.outcome for one in results), strict=True)))
            for rollout, *results in members
        ]
        comparison.add(outcomes, [rollout for rollout, *_ in members])
    return comparison


def logged_label(name: str) -> str:
    """The name of a logged reward, beside those that score again."""
    return f"{name} (logged)"


def _outcomes(rollout: Rollout, again: Mapping[str, Score]) -> dict[str, Score]:
    return {logged_label(name): outcome for name, outcome in rollout.outcomes.items()} | dict(again)


def _answer(number: int, rollout: Rollout) -> Answer:
    columns = dict(rollout.columns)
    if rollout.completion_ids is not None:
        columns["completion_ids"] = rollout.completion_ids
    return Answer(number, rollout.where, rollout.prompt, rollout.completion, columns)
