"""``risen demo``: the command and its closing table."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from safetensors import SafetensorError

from risen_plugin.commands.advise.machine import command_began
from risen_plugin.commands.options import Renamed
from risen_plugin.commands.report.markup import duration
from risen_plugin.commands.train.models import check_name
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
@click.option(
    "--model",
    metavar="PATH|ID",
    help="On this chat model: what it does not follow, a RISEN phase, what it follows then.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=15,
    show_default=True,
    help="With --model: chooses as long a phase as ends in this time, export included.",
)
@click.option("--chat", is_flag=True, help="With --model: talk to the bundle at the end.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads; with --model all, else 1, since more help little on so small a model.",
)
@click.pass_context
def demo_command(
    context: click.Context,
    *,
    out: Path,
    seed: int,
    quick: bool,
    baselines: bool,
    model: str | None,
    minutes: float,
    chat: bool,
    threads: int | None,
) -> None:
    """Fine-tune, follow instructions, compile, answer: the whole path on a small model.

    An order desk's messages are to be answered as asked. The recorded answers have the facts right
    but often ignore the form that was asked for; fine-tuning learns both, RISEN mends the second.

    With --model it is a real model: a phase as `risen adapt MODEL` makes it, on the prompts of the
    package, the answers before and after, an int8 bundle, and `risen chat`.
    """
    began = command_began()
    _check_options(context, model)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists; name a new folder with --output, or remove it")
    if model is not None:
        from risen_export.backends.choosing import choose
        from risen_export.merging.source import check_config, resolve

        model = check_name(model)
        choose(check_config(resolve(model)), [("cpu", "fp32"), ("cpu", "int8")])
    from risen_export.backends.genai import require_runtime

    require_runtime()
    _make(out)
    # Read by torch and the bundle when they load.
    if threads is not None or model is None:
        os.environ["OMP_NUM_THREADS"] = str(threads or 1)
    if model is not None:
        _real_demo(context, model, out, began=began, seed=seed, minutes=minutes, chat=chat)
        return
    from risen_export.demo.run import run_demo
    from risen_export.demo.settings import FULL, QUICK

    settings = QUICK if quick else FULL
    with _gone_if_refused(out):
        summary = run_demo(out, settings, seed=seed, baselines=baselines, model=None)
    click.echo(closing_table(summary, out))


def _check_options(context: click.Context, model: str | None) -> None:
    """Refuse options of the one demo for the other.

    :raises ConfigError: naming the first of them.
    """
    foreign = ("minutes", "chat") if model is None else ("quick", "baselines")
    given = [
        name
        for name in foreign
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if given and model is None:
        raise ConfigError(f"--{given[0]} is for a demo on a model of yours; name it with --model")
    if given:
        raise ConfigError(
            f"--{given[0]} is for the demo on the embedded model; leave it or --model out"
        )


def _real_demo(
    context: click.Context,
    model: str,
    out: Path,
    *,
    began: float,
    seed: int,
    minutes: float,
    chat: bool,
) -> None:
    from risen_export.demo.real import run_real_demo

    with _gone_if_refused(out):
        run_real_demo(model, out, began=began, seed=seed, minutes=minutes)
    bundle = out / "bundle"
    spent = duration(time.perf_counter() - began)
    click.echo(
        f"\ntook {spent}; {out}/summary.json has the numbers\n"
        f"next: risen chat {bundle}, or risen report {out / 'run'}"
    )
    if chat and sys.stdin.isatty():
        group: Any = context.find_root().command
        context.invoke(group.get_command(context, "chat"), bundle=bundle)


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


def _more(summary: Mapping[str, Any]) -> str:
    """What to say where no phase was kept."""
    kept = any(phase["accepted"] for phase in summary["phases"])
    return "" if kept else "; no phase gained enough, as a short one seldom does (--quick)"


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
        f"next: risen report {out}/run draws what happened, with matplotlib{_more(summary)}",
    ]
    return "\n".join(lines)
