"""``risen score`` and ``risen rescore``. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from risen_plugin.builtin.rewards import Constraints
from risen_plugin.commands.completing import offered, runs
from risen_plugin.commands.options import NearChoice, Renamed, json_option, options_of
from risen_plugin.commands.score import tables
from risen_plugin.commands.score.by_row import outcome_data, score_rows
from risen_plugin.commands.score.comparison import Disagreement
from risen_plugin.commands.score.rescoring import labelled, options_by_label, rescore
from risen_plugin.commands.score.rows import Answer, Unusable, read_answers
from risen_plugin.commands.score.sources import Joined, rows_in
from risen_plugin.commands.score.summary import Summary
from risen_plugin.constraints.core import RULES, Rules
from risen_plugin.constraints.judging import check_rules
from risen_plugin.errors import ConfigError, DataError, near_path
from risen_plugin.hookspecs import hookimpl
from risen_plugin.kit.files import check_ordinary, replacing
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text
from risen_plugin.plugins import Plugins
from risen_plugin.plugins.lookup import look_up
from risen_plugin.record.rollouts import Rollout, logged_rewards, read_rollouts
from risen_plugin.rewards.calling import NamedReward, wrap

_Command = TypeVar("_Command", bound=Callable[..., Any])


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(score_command)
    cli.add_command(rescore_command)


def _shared(command: _Command) -> _Command:
    """Add the options that both commands have to ``command``."""
    for decorate in reversed(
        (
            click.option(
                "--passes-at",
                type=float,
                default=1.0,
                show_default=True,
                help="The score from which an answer counts as passed.",
            ),
            click.option(
                "--on-error",
                type=NearChoice(["stop", "skip"]),
                default="stop",
                show_default=True,
                help="At a row that cannot be read or scored: stop, or count an error and go on.",
            ),
            click.option(
                "--batch-size",
                type=click.IntRange(min=1),
                default=256,
                show_default=True,
                help="Answers that a reward gets at once.",
            ),
            click.option(
                "--timeout",
                "timeout_s",
                type=click.FloatRange(min=0, min_open=True),
                default=300.0,
                show_default=True,
                metavar="SECONDS",
                help="The time that a reward may take for one batch.",
            ),
        )
    ):
        command = decorate(command)
    return command


@click.command("score")
@click.argument("reward", shell_complete=offered("reward"))
@click.argument("file")
@click.option(
    "-o", "--option", "pairs", metavar="NAME=VALUE", multiple=True, help="An option of the reward."
)
@click.option("--prompt-column", default="prompt", show_default=True, help="The prompts' column.")
@click.option(
    "--completion-column", default="completion", show_default=True, help="The answers' column."
)
@click.option(
    "--prompts",
    metavar="FILE",
    help="A file with the prompts and their columns, where FILE has the answers alone.",
)
@click.option(
    "--join-by",
    metavar="COLUMN",
    help="The column by which the two belong together: key, else prompt.",
)
@click.option(
    "--as",
    "rules",
    type=NearChoice(RULES),
    help="By whose rules constraints are judged: risen's own, or exactly as IFEval.  "
    "[default: risen]",
)
@click.option("--strip-thinking", is_flag=True, help="Take thinking sections off the answers.")
@click.option("--limit", type=click.IntRange(min=1), help="Score the first rows only.")
@_shared
@click.option("--summary", "summary_only", is_flag=True, help="Print the summary alone.")
@json_option("Print JSON Lines, one object per row; no summary.")
@click.option(
    "--output",
    "out",
    cls=Renamed,
    earlier=("--out",),
    type=click.Path(path_type=Path),
    help="Write the JSON Lines here too.",
)
@click.pass_obj
def score_command(
    plugins: Plugins,
    *,
    reward: str,
    file: str,
    pairs: tuple[str, ...],
    prompt_column: str,
    completion_column: str,
    prompts: str | None,
    join_by: str | None,
    rules: Rules | None,
    strip_thinking: bool,
    limit: int | None,
    passes_at: float,
    on_error: str,
    batch_size: int,
    timeout_s: float,
    summary_only: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Score the answers in FILE with REWARD, and show what it looked at.

    REWARD is a name that `risen rewards` lists, or path.py:NAME, or module:NAME.

    FILE holds a prompt, a completion (text or chat messages) and the columns that the reward needs
    in each row: JSON Lines, .json, .parquet, or the samples that lm-eval logs. The file - is
    standard input. It is read as a stream.
    """
    by = _by_rules(_named(plugins, reward, pairs), rules)
    by_constraint = "instruction_id_list" in by.needs
    summary = Summary(passes_at)
    width = shutil.get_terminal_size().columns
    if join_by is not None and prompts is None:
        raise ConfigError("--join-by names a column of --prompts FILE, which is not given")
    joined = None if prompts is None else _joined(prompts, join_by)
    with _opened(file) as data, _published(out, file) as publish:
        name = "standard input" if file == "-" else file
        rows = read_answers(
            data,
            name,
            prompt=prompt_column,
            completion=completion_column,
            states_constraints=by_constraint,
            joined=joined,
        )
        some = _not_empty(itertools.islice(rows, limit), name)
        for scored in score_rows(
            by,
            some,
            batch_size=batch_size,
            stop=on_error == "stop",
            rules=getattr(by.reward, "rules", rules or "risen"),
            strip_thinking=strip_thinking or getattr(by.reward, "strip_thinking", False) is True,
            timeout_s=timeout_s,
        ):
            summary.add(scored)
            line = json_text(scored.data()) if as_json or publish is not None else ""
            if publish is not None:
                publish.write(line + "\n")
            if summary_only:
                continue
            if as_json:
                say(line)
                continue
            if summary.rows == 1:
                click.secho(tables.score_head(by_constraint=by_constraint), bold=True)
            for shown in tables.score_lines(scored, width, by_constraint=by_constraint):
                click.echo(shown)
    if joined is not None and joined.unanswered and limit is None:
        click.echo(f"{joined.unanswered} prompts of {prompts} have no answer in {name}", err=True)
    if as_json and summary.first_error:
        failed = f"{summary.outcomes['error']} of {summary.rows} rows could not be scored"
        click.echo(f"{failed}, the first one {summary.first_error}", err=True)
    if as_json and summary_only:
        say(json_text(summary.data()))
    elif not as_json:
        click.echo("\n".join([*([] if summary_only else [""]), *tables.summary_lines(summary)]))


@click.command("rescore")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=runs)
@click.option(
    "--rewards",
    cls=Renamed,
    earlier=("--reward",),
    metavar="[LABEL=]REWARD",
    shell_complete=offered("reward"),
    multiple=True,
    required=True,
    help="A reward to compare; may be given more than once, with a label of its own.",
)
@click.option(
    "-o",
    "--option",
    "pairs",
    metavar="[LABEL.]NAME=VALUE",
    multiple=True,
    help="An option of the reward; with several rewards, LABEL names it.",
)
@click.option("--phase", type=click.IntRange(min=1), help="Only the phase with this number.")
@_shared
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="The number of the largest disagreements to show.",
)
@json_option()
@click.option(
    "--output",
    "out",
    cls=Renamed,
    earlier=("--out",),
    type=click.Path(path_type=Path),
    help="Write the JSON here too.",
)
@click.pass_obj
def rescore_command(
    plugins: Plugins,
    *,
    run: Path,
    rewards: tuple[str, ...],
    pairs: tuple[str, ...],
    phase: int | None,
    passes_at: float,
    on_error: str,
    batch_size: int,
    timeout_s: float,
    examples: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Compare rewards on the answers that RUN sampled, without training.

    RUN is the output folder of a run, the folder of one phase, or a completions.parquet. The
    rewards that the run was trained with are compared as they were logged.
    """
    named = labelled(rewards)
    options = options_by_label(pairs, list(named))
    by = {label: _named(plugins, text, options[label]) for label, text in named.items()}
    logged = logged_rewards(run, phase=phase)
    with _published(out, str(run)) as publish:
        comparison = rescore(
            read_rollouts(run, phase=phase),
            by,
            logged,
            passes_at=passes_at,
            examples=examples,
            batch_size=batch_size,
            stop=on_error == "stop",
            timeout_s=timeout_s,
        )
        shown = comparison.examples()
        data = comparison.data() | {"examples": [_example_data(one) for one in shown]}
        if publish is not None:
            publish.write(json_text(data) + "\n")
    if as_json:
        say(json_text(data))
        return
    width = shutil.get_terminal_size().columns
    for line in tables.comparison_lines(comparison, width):
        click.echo(line)
    for one in shown:
        click.echo("\n" + "\n".join(tables.example_lines(one, width)))


def _named(plugins: Plugins, text: str, pairs: Sequence[str]) -> NamedReward:
    built = look_up(plugins, "reward", text, options_of(pairs))
    return wrap(built.value, built.name, built.label)


def _by_rules(by: NamedReward, rules: Rules | None) -> NamedReward:
    """The reward, judging by the rules if it is ours; others have their own.

    :raises ConfigError: if it reads no constraints, or a package is not installed.
    """
    if rules is None:
        return by
    if "instruction_id_list" not in by.needs:
        raise ConfigError(f"--as {rules} is about constraints, which {by.label} does not read")
    check_rules(rules)
    if isinstance(by.reward, Constraints):
        return wrap(replace(by.reward, rules=rules), by.__name__, by.label, by.grading)
    return by


def _joined(prompts: str, by: str | None) -> Joined:
    with _opened(prompts) as data:
        return Joined(rows_in(data, prompts), prompts, by)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    path = Path(file)
    try:
        check_ordinary(path)
        lines = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"there is no file '{file}'{near_path(path)}") from None
    except OSError as error:
        raise DataError(f"cannot read '{file}': {error.strerror}") from error
    with lines:
        yield lines


@contextlib.contextmanager
def _published(out: Path | None, source: str) -> Iterator[IO[str] | None]:
    """A file that becomes ``out`` at the end, unless an error is raised."""
    if out is None:
        yield None
        return
    if out.is_dir():
        raise ConfigError(f"--output '{out}' is a folder; name a file")
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise ConfigError(f"--output '{out}' is the file that is read; name another")
    with replacing(out) as temporary:
        try:
            file = temporary.open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write --output '{out}': {error.strerror}") from error
        with file:
            yield file


def _not_empty(rows: Iterable[Answer | Unusable], name: str) -> Iterator[Answer | Unusable]:
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DataError(f"{name} has no rows")


def _example_data(example: Disagreement) -> dict[str, Any]:
    rollout: Rollout = example.about
    return {
        "where": rollout.where,
        "phase": rollout.phase,
        "step": rollout.step,
        "group": rollout.group,
        "prompt": rollout.prompt,
        "completion": rollout.completion,
        "between": [example.first, example.second],
        "scores": {name: outcome_data(outcome) for name, outcome in example.outcomes.items()},
    }
