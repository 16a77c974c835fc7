"""Lay out scored answers and comparisons as lines of text that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from risen_plugin.commands.score.by_row import Scored, verdict
from risen_plugin.commands.score.comparison import Comparison, Disagreement
from risen_plugin.commands.score.summary import Summary
from risen_plugin.constraints.core import counted
from risen_plugin.contracts import text_of
from risen_plugin.errors import printable
from risen_plugin.record.rollouts import Rollout, reason_of
from risen_plugin.rewards.scores import Score, kind_of

_INDENT = " " * 9
_MARKS = {"met": "+", "met loosely": "~", "missed": "-"}


def score_head(*, by_constraint: bool) -> str:
    """The head above :func:`score_lines`."""
    return f"{'row':>7}  {'score':>7}  {'strict  loose  ' if by_constraint else ''}answer"


def score_lines(scored: Scored, width: int, *, by_constraint: bool) -> Iterator[str]:
    """One row: its outcome and the beginning of its answer, then a line per constraint."""
    name = kind_of(scored.outcome)
    shown = f"{scored.outcome:.3f}" if name == "score" else name
    line = f"{scored.row:>7}  {shown:>7}  "
    if by_constraint:
        line += f"{_yes_or_no(scored.strict):6}  {_yes_or_no(scored.loose):5}  "
    yield clipped(line + visible(reason_of(scored.outcome) or scored.text), width)
    if scored.note:
        yield clipped(f"{_INDENT}{visible(scored.note)}", width)
    for judgement in scored.judgements or ():
        seen = f"  {visible(judgement.seen)}" if judgement.seen else ""
        yield clipped(f"{_INDENT}{_MARKS[verdict(judgement)]} {judgement.id}{seen}", width)


def summary_lines(summary: Summary) -> Iterator[str]:
    """Counts and means over the rows, then a table with a line per constraint."""
    data = summary.data()
    outcomes = ", ".join(f"{count} {name}" for name, count in data["outcomes"].items())
    yield f"rows       {summary.rows}: {outcomes}"
    yield f"score      mean {_number(data['mean_score'])}, {_number(data['pass_rate'])} passed" + (
        f" (at {summary.passes_at:g})" if summary.passes_at != 1 else ""
    )
    if data["adherence"] is None:
        return
    one = data["adherence"]
    yield (
        f"adherence  strict {_number(one['strict'])}, loose {_number(one['loose'])} "
        f"of {one['rows']} rows with constraints"
    )
    every = data["instructions"]
    yield (
        f"           strict {_number(every['strict'])}, loose {_number(every['loose'])} "
        f"of their {counted(every['count'], 'constraint')} (instruction level)"
    )
    yield ""
    of_ids = [
        (id_, str(of["rows"]), _number(of["strict"]), _number(of["loose"]))
        for id_, of in data["per_constraint"].items()
    ]
    yield from table(("constraint", "rows", "strict", "loose"), of_ids)


def comparison_lines(comparison: Comparison, width: int) -> Iterator[str]:
    """The rewards, then each pair of them."""
    data = comparison.data()
    yield f"{data['answers']} answers in {data['groups']} groups"
    yield ""
    yield from table(
        ("reward", "mean", "pass", "score", "abstain", "error", "flat groups"),
        [
            (
                clipped(name, max(width - 54, 20)),
                _number(one["mean"]),
                _number(one["pass_rate"]),
                *(str(one["outcomes"][outcome]) for outcome in ("score", "abstain", "error")),
                _counted(one["flat_groups"], one["flat_share"]),
            )
            for name, one in data["rewards"].items()
        ],
    )
    if not data["pairs"]:
        return
    yield ""
    yield from table(
        ("pair", "correlation", "agree", "best changes"),
        [
            (
                clipped(" ~ ".join(pair["rewards"]), max(width - 40, 20)),
                _number(pair["correlation"]),
                _number(pair["agreement"]),
                _counted(pair["best_changed"], pair["best_changed_share"]),
            )
            for pair in data["pairs"]
        ],
    )


def example_lines(example: Disagreement, width: int) -> Iterator[str]:
    """One answer on which rewards disagree; its ``about`` is the rollout."""
    rollout: Rollout = example.about
    yield f"phase {rollout.phase}, step {rollout.step}, group {rollout.group}"
    for what, text in (("prompt", rollout.prompt), ("answer", rollout.completion)):
        yield clipped(f"  {what}  {visible(text_of(text))}", width)
    for name, outcome in example.outcomes.items():
        yield clipped(f"  {_shown(outcome):>7}  {name}", width)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Aligned columns: the first one to the left, the others to the right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells)


def visible(text: str) -> str:
    """``text`` in one line, without control characters."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def clipped(line: str, width: int) -> str:
    """``line`` cut to ``width`` characters, but to no fewer than 20; names in it can be printed."""
    line, width = printable(line), max(width, 20)
    return line.rstrip() if len(line) <= width else f"{line[: width - 3].rstrip()}..."


def _yes_or_no(value: bool | None) -> str:
    return "" if value is None else ("yes" if value else "no")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _counted(count: int, of_all: float | None) -> str:
    return f"{count} ({_number(of_all)})" if of_all is not None else "-"


def _shown(outcome: Score) -> str:
    name = kind_of(outcome)
    return f"{outcome:.3f}" if name == "score" else name
