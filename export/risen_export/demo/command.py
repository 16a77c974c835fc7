"""``risen demo``: the command and its closing table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from safetensors import SafetensorError

from risen_plugin.commands.options import Renamed
from risen_plugin.errors import ConfigError, RecordError, RisenError, one_line
from risen_plugin.hookspecs import hookimpl

_STATES = {
    "before_risen": "after fine-tuning",
    "after_risen": "after RISEN",
    "fine_tune_only_same_time": "fine-tuning on instead",
    "fine_tune_filtered_same_time": "  on passing rows only",
}


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(demo_command)


@click.command("demo")
@click.option(
    "--output",
    "out",
    cls=Renamed,
    earlier=("--out",),
    type=click.Path(path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="A new folder for the run, the bundle and summary.json.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),  # numpy takes less than 2**32, and some seeds are derived
    default=0,
    show_default=True,
    help="Of data, sampling and training.",
)
@click.option("--quick", is_flag=True, help="Every stage within 90 s; too short to show a result.")
@click.option("--baselines", is_flag=True, help="Also spend RISEN's time on fine-tuning instead.")
@click.option("--model", help="Start from this model folder or hub id; default: the embedded base.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="CPU threads; more help little on so small a model, and hurt on a busy machine.",
)
def demo_command(
    *, out: Path, seed: int, quick: bool, baselines: bool, model: str | None, threads: int
) -> None:
    """Fine-tune, follow instructions, compile, answer: the whole path on a small model.

    An order desk's messages are to be answered as asked. The recorded answers have the facts right
    but often ignore the form that was asked for; fine-tuning learns both, RISEN mends the second.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists; name a new folder with --output, or remove it")
    if model is not None:
        from risen_export.backends.choosing import choose
        from risen_export.merging.source import check_config, resolve

        choose(check_config(resolve(model)), [("cpu", "fp32"), ("cpu", "int8")])
    from risen_export.backends.genai import require_runtime

    require_runtime()
    _make(out)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by torch and the bundle when they load
    from risen_export.demo.run import run_demo
    from risen_export.demo.settings import FULL, QUICK

    settings = QUICK if quick else FULL
    with _gone_if_refused(out):
        summary = run_demo(out, settings, seed=seed, baselines=baselines, model=model)
    click.echo(closing_table(summary, out))


@contextmanager
def _gone_if_refused(out: Path) -> Iterator[None]:
    """Remove ``out``, which was empty before, if the demo fails."""
    try:
        yield
    except (RisenError, OSError, SafetensorError) as error:
        shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, RisenError):
            raise
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RecordError(
            f"cannot write to {out}: {reason}; make room there, or choose another --output"
        ) from error


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot write to {out}: {error.strerror}; choose another --output"
        ) from error


def closing_table(summary: Mapping[str, Any], out: Path) -> str:
    """The measurements of the demo as a table for a person."""
    data = summary["data"]
    lines = [
        "",
        f"{data['reported_instructions']} held-out instructions, "
        f"{data['reported_domain_rows']} held-out domain rows",
        f"{'':24}{'adherence':>10}{'soft':>8}{'domain':>9}{'probe loss':>12}",
    ]
    for name, title in _STATES.items():
        if name in summary:
            f = summary[name]
            lines.append(
                f"{title:24}{f['adherence_strict']:10.3f}{f['adherence_soft']:8.3f}"
                f"{f['domain_accuracy']:9.3f}{f['probe_loss']:12.4f}"
            )
    lines += ["", f"{'bundle':24}{'adherence':>10}{'logit diff':>13}{'greedy tokens equal':>21}"]
    for precision in ("fp32", "int8"):
        b = summary["bundle"][precision]
        lines.append(
            f"  {precision:22}{b['adherence_strict']:10.3f}{b['max_logit_diff']:13.2g}"
            f"{b['greedy_agreement']:21.1%}"
        )
    lines += ["", "phases"]
    for phase in summary["phases"]:
        outcome = {True: "kept: ", False: "dropped: ", None: ""}[phase["accepted"]]
        reason = phase["verdict"] or phase["reason"]
        lines.append(f"  {phase['kind']:10}{phase['steps']:5} steps  {outcome}{reason}")
    lines += ["", "answered by the int8 bundle"]
    for answered in summary["answers"]:
        question = answered["question"].replace("\n\n", "\n    ")
        answer = answered["answer"].replace("\n", "\n    ")
        lines += [f"  > {question}", f"    {click.style(answer, fg='green')}", ""]
    wall = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in summary["wall_s"].items())
    lines += [
        f"time: {wall}; memory: {summary['peak_rss_mb']} MB at most",
        f"{out}/summary.json has the numbers, {out}/bundle answers: "
        f'risen generate {out}/bundle "..."',
    ]
    return "\n".join(lines)
