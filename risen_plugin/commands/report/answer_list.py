"""The section of the best and worst answers, which the page's script fills and searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from risen_plugin.commands.report.answers import LONGEST, Answers, Shown
from risen_plugin.commands.report.markup import Markup, data, html, join, prose


def best_and_worst(answers: Answers) -> list[Markup]:
    """The form, the data that the page's script searches in, and the place for what it finds."""
    if not answers.shown:
        return []
    explanation = f"{len(answers.shown):,} of {answers.count:,} sampled answers"
    if len(answers.shown) < answers.count:
        explanation += (
            ": the best and the worst of each phase, reward and family, and some that failed"
        )
    explanation += (
        f". Texts are cut after {LONGEST:,} characters; completions.parquet has all of them."
    )
    phases = sorted({shown.phase for shown in answers.shown})
    families = sorted({shown.family for shown in answers.shown if shown.family})
    rewards = list(answers.by_reward)
    orders = [("best", "best first"), ("worst", "worst first")]
    orders += [
        (f"{end}:{index}", f"{word} by {reward}")
        for index, reward in enumerate(rewards)
        for end, word in (("best", "best"), ("worst", "worst"))
    ]
    controls = join(
        (
            Markup(
                '<label>Search <input type="search" id="answers-query" maxlength="200"></label>'
            ),
            _select("order", "Order", orders),
            _select("phase", "Phase", [("", "all"), *((str(p), str(p)) for p in phases)]),
            _select("family", "Family", [("", "all"), *((name, name) for name in families)]),
        )
    )
    content = data({"rewards": rewards, "answers": [_packed(s, rewards) for s in answers.shown]})
    return [
        prose(explanation),
        Markup(f'<form id="answers-form" role="search">{controls}</form>'),
        Markup('<p id="answers-count" role="status" aria-live="polite"></p>'),
        Markup('<ol id="answers-list"></ol>'),
        Markup('<button type="button" id="answers-more" hidden>Show more</button>'),
        Markup("<noscript><p>Searching the answers needs JavaScript.</p></noscript>"),
        Markup(f'<script type="application/json" id="answers-data">{content}</script>'),
    ]


def _packed(shown: Shown, rewards: Sequence[str]) -> list[Any]:
    """One answer as the page's script reads it."""
    return [
        shown.phase,
        shown.step,
        shown.family,
        shown.prompt,
        shown.completion,
        None if shown.total is None else round(shown.total, 4),
        [_rounded(shown.scores.get(reward)) for reward in rewards],
        [[id_, met] for id_, met in shown.met],
    ]


def _rounded(score: float | str | None) -> float | str | None:
    return round(score, 4) if isinstance(score, float) else score


def _select(name: str, label: str, options: Sequence[tuple[str, str]]) -> Markup:
    inside = "".join(
        f'<option value="{html(value)}">{html(text)}</option>' for value, text in options
    )
    return Markup(f'<label>{html(label)} <select id="answers-{name}">{inside}</select></label>')
