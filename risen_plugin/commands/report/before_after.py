"""Held-out instructions with the model's answers before and after beside each other.

Nothing of it needs a script: the choice among gained, lost and same is made by the page's style.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from risen_plugin.commands.report.markup import Markup, html, join, prose
from risen_plugin.commands.report.paired import (
    IN_WORDS,
    Change,
    Compared,
    by_change,
    change,
    checks,
    compared,
)
from risen_plugin.record.answered import Answer, Pair
from risen_plugin.record.reading import Run

MOST = 120  # instructions that are shown
LONGEST = 1200  # characters of a text that are shown
_WORDS: dict[Change, str] = {
    "gained": "▲ gained",
    "lost": "▼ lost",
    "same": "= same",
}


def before_and_after(run: Run) -> list[Markup]:
    """What is compared, the choice among the changes, and the instructions with both answers."""
    found = compared(run)
    if found is None:
        return []
    with_text = [pair for pair in by_change(found.pairs) if pair.has_text]
    shown = with_text[:MOST]
    if not shown:
        return []
    counts: Counter[Change] = Counter(change(pair) for pair in found.pairs)
    more = ""
    if len(shown) < len(found.pairs):
        more = f" Shown are {len(shown)} of {len(found.pairs)}."
    return [
        prose(f"{_about(found)} Those that changed come first.{more}"),
        _choice(counts, len(found.pairs)),
        Markup(f'<ol class="pairs">{join(_item(pair) for pair in shown)}</ol>'),
    ]


def _about(found: Compared) -> str:
    which = found.first.name
    if found.first is not found.last:
        which = f"{found.first.name} and after {found.last.name}"
    state = (
        "which was kept"
        if found.first is found.last
        else "the first and the latest that were kept; fine-tuning in between is part of the change"
    )
    if not found.is_kept:
        state = "which was dropped: the model gives the answers before"
    return (
        f"The greedy answers to held-out instructions before and after {which}, {state}."
        if found.first is found.last
        else f"The greedy answers to held-out instructions before {which}, {state}."
    )


def _choice(counts: Counter[Change], total: int) -> Markup:
    """Radio buttons, which the style reads, before the list that they choose from.

    At first those are shown that changed, so that what stays the same does not fill the page.
    """
    changed = counts["gained"] + counts["lost"]
    chosen = "changed" if changed else "all"
    options = [("changed", f"changed ({changed})"), ("all", f"all ({total})")]
    options += [(name, f"{word} ({counts[name]})") for name, word in _WORDS.items()]
    buttons = "".join(
        f'<label><input type="radio" name="pairs" value="{name}"'
        f"{' checked' if name == chosen else ''}> {html(label)}</label>"
        for name, label in options
    )
    return Markup(f'<fieldset class="choice"><legend>Show</legend>{buttons}</fieldset>')


def _item(pair: Pair) -> Markup:
    kind = change(pair)
    place = f"{IN_WORDS[pair.set]} · instruction {pair.row + 1}"
    count = len(pair.constraints)
    if count and pair.before.met is not None and pair.after.met is not None:
        place += f" · {sum(pair.before.met)} → {sum(pair.after.met)} of {count} constraints met"
    return Markup(
        f'<li class="{kind}"><p class="place"><b class="{kind}">{html(_WORDS[kind])}</b> '
        f'{html(place)}</p><div class="prompt">{html(_cut(pair.prompt))}</div>'
        f'<div class="both">{_answer("before", pair.before, pair.constraints)}'
        f"{_answer('after', pair.after, pair.constraints)}</div></li>"
    )


def _answer(when: str, answer: Answer, constraints: Sequence[str]) -> Markup:
    told = [_check(is_met, text) for is_met, text in checks(constraints, answer)]
    return Markup(
        f'<div><h3>{when}</h3><div class="completion">{html(_cut(answer.text) or "(empty)")}</div>'
        f'<ul class="checks">{join(told)}</ul></div>'
    )


def _check(is_met: bool | None, text: str) -> Markup:
    sign, kind = {True: ("✓", "met"), False: ("✗", "unmet"), None: ("?", "unmet")}[is_met]
    return Markup(f'<li class="{kind}">{sign} {html(text)}</li>')


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
