"""Draw what ``benchmarks.real_model`` left: IFEval by family before and after, and rewards.

Reads the answers and the records that lie in OUT, and measures nothing.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import ifeval
from risen_plugin.constraints import judge_all
from risen_plugin.kit.smoothing import running_mean

INK, MUTED, BEFORE, AFTER = "#1f2328", "#656d76", "#8c959f", "#0969da"
WHOLE = "whole prompts"
Shares = dict[str, float]


@click.command()
@click.argument("out", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--arm", default="risen", show_default=True)
@click.option("--ifeval", "ifeval_file", type=click.Path(path_type=Path), default=ifeval.IFEVAL)
def main(out: Path, picture: Path, arm: str, ifeval_file: Path) -> None:
    """Draw the seeds of an arm in OUT beside the model as it was, into PICTURE."""
    rows = ifeval.read(ifeval_file)
    numbers = out / "numbers"
    before = _shares(rows, _answers(numbers / "base.fp32.json"))
    found = sorted(numbers.glob(f"{arm}-*.fp32.json"))
    if not found:
        raise click.ClickException(f"no {arm}-SEED.fp32.json in {numbers}")
    after = [_shares(rows, _answers(path)) for path in found]
    records = sorted(out.glob(f"{arm}-*/risen/phase-001/phase.json"))
    rewards = [_rewards(json.loads(path.read_text("utf-8"))) for path in records]
    _draw(picture, before, after, rewards)


def _answers(path: Path) -> list[str]:
    answers: list[str] = json.loads(path.read_text("utf-8"))["answers"]
    return answers


def _rewards(record: dict[str, Any]) -> list[float]:
    return [log["reward"] for log in record["logs"] if "reward" in log]


def _shares(rows: Sequence[dict[str, Any]], answers: Sequence[str]) -> Shares:
    """The share of instructions followed strictly, by family, and of whole prompts."""
    met: dict[str, list[bool]] = defaultdict(list)
    for row, text in zip(rows, answers):  # noqa: B905  the facts come after the rows
        ids = row["instruction_id_list"]
        judged = judge_all(text, ids, row["kwargs"], row["prompt"], rules="ifeval")
        for id_, one in zip(ids, judged, strict=True):
            met[id_.partition(":")[0].replace("_", " ")].append(one.strict)
        met[WHOLE].append(all(one.strict for one in judged))
    return {family: statistics.fmean(each) for family, each in met.items()}


def _draw(
    picture: Path, before: Shares, after: Sequence[Shares], rewards: Sequence[Sequence[float]]
) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 10, "text.color": INK, "axes.labelcolor": MUTED}):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(11, 4.4), width_ratios=(1.5, 1), layout="constrained"
        )
        _families(left, before, after)
        _curves(right, rewards)
        for axes in (left, right):
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(length=0, colors=INK)
            axes.set_axisbelow(True)
        figure.savefig(picture, dpi=150, facecolor="white")


def _families(axes: Any, before: Shares, after: Sequence[Shares]) -> None:
    means = {family: statistics.fmean(seed[family] for seed in after) for family in before}
    order = sorted(before, key=lambda family: (family == WHOLE, means[family] - before[family]))
    for place, family in enumerate(order):
        axes.plot((before[family], means[family]), (place, place), color="#d0d7de", lw=3, zorder=1)
        axes.scatter(before[family], place, color=BEFORE, s=46, zorder=2)
        axes.scatter(means[family], place, color=AFTER, s=46, zorder=3)
        told = f"{before[family]:.2f} → {means[family]:.2f}"
        axes.text(max(before[family], means[family]) + 0.02, place, told, va="center", color=INK)
    axes.set_yticks(range(len(order)), order)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_xlim(0, 1)
    axes.grid(axis="x", color="#eaeef2")
    axes.set_title(
        "IFEval, share followed strictly: before (grey), after (blue)", loc="left", fontsize=10.5
    )


def _curves(axes: Any, rewards: Sequence[Sequence[float]]) -> None:
    lasts = [running_mean(values)[-1][0] for values in rewards]
    heights = _apart(lasts)
    for number, values in enumerate(rewards, start=1):
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, color=AFTER, alpha=0.18, lw=1)
        means = [mean for mean, _ in running_mean(values)]
        axes.plot(steps, means, color=AFTER, ls=("-", "--", ":")[number % 3 - 1])
        axes.text(len(values) + 0.5, heights[number - 1], f"run {number}", color=AFTER, va="center")
    axes.set_ylim(0, 1)
    axes.set_xlabel("GRPO step of 32 answers")
    axes.grid(axis="y", color="#eaeef2")
    axes.set_title("training reward, and its running mean", loc="left", fontsize=10.5)


def _apart(heights: Sequence[float], least: float = 0.045) -> list[float]:
    """Heights of labels that do not cover one another: the lowest stays, others go up."""
    placed: dict[int, float] = {}
    for at in sorted(range(len(heights)), key=heights.__getitem__):
        placed[at] = max(heights[at], max(placed.values(), default=-1.0) + least)
    return [placed[at] for at in range(len(heights))]


if __name__ == "__main__":
    main()
