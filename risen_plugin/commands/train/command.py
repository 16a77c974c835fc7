"""``risen train`` and ``risen adapt``. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from risen_plugin.builtin.generators.sources import check_there
from risen_plugin.commands.advise.command import advise_command
from risen_plugin.commands.completing import files
from risen_plugin.commands.options import json_option, rewarded, shared
from risen_plugin.commands.train.adaptation import (
    adaptation,
    in_one_phase,
    own_instructions,
    rewards_of,
    risen_section,
)
from risen_plugin.commands.train.card import README, card
from risen_plugin.commands.train.closing import (
    checked_lines,
    closing_data,
    closing_lines,
    phase_lines,
)
from risen_plugin.commands.train.folders import (
    Ending,
    check_folder,
    check_unchanged,
    ending_of,
    remove_ending,
    save_ending,
    seed_of,
)
from risen_plugin.commands.train.overrides import overridden
from risen_plugin.commands.train.recipe import (
    STEPS,
    in_words,
    kind_of,
    recipe,
    steps_of,
    with_recipe,
)
from risen_plugin.commands.train.run_config import DataSource, RunConfig, read_run
from risen_plugin.errors import ConfigError, located
from risen_plugin.hookspecs import hookimpl
from risen_plugin.kit.files import write_text
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text
from risen_plugin.record.lock import held

if TYPE_CHECKING:
    from risen_plugin.commands.train.training import Finished

_NOT_KEPT = 1
_CHECK = click.option(
    "--check", "only_check", is_flag=True, help="Do all that comes before the first step, no more."
)
_JSON = json_option("Print the result as JSON, in place of the lines.")


@hookimpl
def risen_register_commands(cli: click.Group) -> None:
    """Join the ``risen`` command."""
    cli.add_command(train_command)
    cli.add_command(adapt_command)
    cli.add_command(advise_command)


@click.command("train")
@click.argument("run_yaml", type=click.Path(path_type=Path), metavar="RUN.yaml")
@click.option("--output", type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in the folder.")
@click.option("--force", is_flag=True, help="Resume although RUN.yaml or a plugin has changed.")
@_CHECK
@_JSON
@shared
@click.pass_context
def train_command(
    context: click.Context,
    *,
    run_yaml: Path,
    output: Path | None,
    resume: bool,
    force: bool,
    only_check: bool,
    as_json: bool,
    seed: int | None,
    pairs: tuple[str, ...],
    quiet: bool,
) -> None:
    """Fine-tune, with RISEN phases or without, as RUN.yaml says, and save the model.

    RUN.yaml names a model, and data to fine-tune on or a risen section or both. Everything
    in it is checked before a model is loaded. The folder of the run is --output, or
    `output` in the file, or out/ and the file's name.

    Ends with exit code 1 if there were RISEN phases and the guard dropped all of them; the
    model is saved all the same.
    """
    data = _forced(overridden(read_run(run_yaml), pairs), force)
    default = Path("out") / run_yaml.stem
    run, folder = _read(
        data, str(run_yaml), output=output, seed=seed, default=default, resume=resume
    )
    if only_check:
        _check(run, folder, str(run_yaml), as_json)
        return
    now = {**data, "seed": run.seed}
    ending = _ended(folder, now, str(run_yaml), force) if resume else None
    if ending is None:
        where = str(run_yaml)
        _, ending = _carry_out(run, folder, data, where, resume=resume, quiet=quiet)
    _print_once(_as_text(ending, as_json))
    context.exit(_NOT_KEPT if ending.data.get("all_dropped") else 0)


@click.command("adapt")
@click.argument("model")
@click.argument("adapter", required=False)
@rewarded
@click.option("--output", type=click.Path(path_type=Path), help="A new folder for the adapter.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help=(
        f"GRPO steps. Unless given {STEPS}; above 20 M parameters "
        f"{steps_of(math.inf, mends=False)}, or after mended answers "
        f"{steps_of(math.inf, mends=True)}."
    ),
)
@click.option(
    "--probe",
    metavar="FILE",
    shell_complete=files,
    help="Rows whose loss must not rise; see below.",
)
@click.option("--keep-anyway", is_flag=True, help="Save the adapter whatever the guard says.")
@click.option("--name", help="Of ADAPTER in the bundle; its folder's name if unset.")
@click.option("--remove", metavar="NAME", help="Take an adapter out of the bundle MODEL.")
@click.option("--resume", is_flag=True, help="Go on with what was interrupted.")
@click.option("--force", is_flag=True, help="Resume although an option or a plugin has changed.")
@_CHECK
@_JSON
@shared
@click.pass_context
def adapt_command(
    context: click.Context,
    *,
    model: str,
    adapter: str | None,
    name: str | None,
    remove: str | None,
    instructions: str | None,
    rewards: tuple[str, ...],
    options: tuple[str, ...],
    generator: str,
    output: Path | None,
    steps: int | None,
    probe: str | None,
    keep_anyway: bool,
    resume: bool,
    force: bool,
    only_check: bool,
    as_json: bool,
    seed: int | None,
    pairs: tuple[str, ...],
    quiet: bool,
) -> None:
    """Reinforce MODEL on instructions alone, and save a new adapter if that pays.

    MODEL is a folder or hub id; its weights stay as they are. Without --instructions it learns from
    the plain prompts that come with the package, with constraints added; `embedded` from messages
    to an order desk, which are what it knows. Some of the instructions
    are held out for the guard. Without --probe, retention is measured on what MODEL itself answers:
    to the plain `query` of the held-out rows, or, where they have none, those answers that follow
    already.

    Ends with exit code 1 if the guard drops the phase and --keep-anyway is not given.

    With ADAPTER, MODEL is an exported bundle, and nothing is trained: the adapter is added to it,
    as `risen adapters add` does.
    """
    if adapter is not None or remove is not None:
        _change_bundle(context, model, adapter=adapter, name=name, remove=remove)
        return
    note = None
    if instructions is None:
        if (Path(model) / "manifest.json").is_file():
            raise ConfigError(
                f"{model} is a bundle; name the ADAPTER to add to it, or --remove one"
            )
        named = context.get_parameter_source("generator") is not ParameterSource.DEFAULT
        rewards = rewards or ("constraints",)
        instructions, made_by, note = own_instructions(model, generator if named else None, rewards)
        generator = made_by
    elif generator == "constraints":
        rewards = rewards or ("constraints",)
    section = risen_section(
        instructions,
        rewards_of(rewards, options),
        generator=generator,
        scheduler=in_one_phase(steps or STEPS),
        probe=probe,
    )
    adapting = adaptation(model, section, keep_anyway=keep_anyway)
    # What a person has written wrong is told before the model is looked at.
    RunConfig.from_dict(overridden(adapting, pairs), "adapt")
    kind = kind_of(model)
    parts = recipe(kind, adds_constraints=generator == "constraints")
    if parts:
        note = "\nrisen: ".join(filter(None, (note, in_words(kind, parts, pairs))))
        adapting = with_recipe(adapting, parts, pairs)
    if steps is None:
        mends = bool(overridden(adapting, pairs)["risen"].get("mending"))
        adapting["risen"]["scheduler"] = in_one_phase(steps_of(kind.parameters, mends=mends))
    data = _forced(overridden(adapting, pairs), force)
    default = Path("out") / f"{Path(model).name}-adapter"
    run, folder = _read(data, "adapt", output=output, seed=seed, default=default, resume=resume)
    if run.lora is None:
        raise ConfigError("adapt trains an adapter; give lora settings, or use risen train")
    if only_check:
        _check(run, folder, "adapt", as_json, note)
        return
    now = {**data, "seed": run.seed}
    ended = _ended(folder, now, "adapt", force) if resume else None
    if ended is not None:
        _print_once(_as_text(ended, as_json))
        context.exit(0 if ended.kept or keep_anyway else _NOT_KEPT)
    done, ending = _carry_out(
        run,
        folder,
        data,
        "adapt",
        resume=resume,
        quiet=quiet,
        only_kept=True,
        foretell=True,
        note=note,
    )
    if done.is_kept or not done.is_main:
        _print_once(_as_text(ending, as_json))
        context.exit(0 if done.is_kept or keep_anyway else _NOT_KEPT)
    dropped = folder / "risen" / "phase-001" / "dropped"
    if not keep_anyway or not dropped.is_dir():
        more = [
            f"nothing was saved but the record in {folder / 'risen'}",
            f"next: risen report {folder} says more; more --steps may gain enough, and "
            "--keep-anyway saves what was trained all the same",
        ]
        _print_once(_as_text(ending, as_json, more))
        context.exit(_NOT_KEPT)
    for file in dropped.iterdir():
        shutil.copy2(file, folder / file.name)
    write_text(folder / README, card(run, folder, 0, done.phases))
    more = [
        f"saved the adapter to {folder} all the same",
        f"next: risen export {folder} {folder}-bundle",
    ]
    saved = replace(ending, data={**ending.data, "saved": "adapter"})
    _print_once(_as_text(saved, as_json, more))


def _change_bundle(
    context: click.Context,
    bundle: str,
    *,
    adapter: str | None,
    name: str | None,
    remove: str | None,
) -> None:
    """Hand ``risen adapt BUNDLE ADAPTER`` to the exporter's own command."""
    if adapter is not None and remove is not None:
        raise ConfigError("an adapter is added or removed, one at a time; drop --remove or ADAPTER")
    group: Any = context.find_root().command
    adapters = group.get_command(context, "adapters")
    if adapters is None:
        raise ConfigError("the exporter is not installed, which adds adapters to bundles")
    values = {"bundle": Path(bundle)}
    if remove is not None:
        context.invoke(adapters.get_command(context, "remove"), **values, name=remove)
        return
    context.invoke(
        adapters.get_command(context, "add"),
        **values,
        adapter=Path(str(adapter)),
        name=name,
        force=context.params["force"],
        as_json=context.params["as_json"],
    )


def _read(
    data: Mapping[str, Any],
    where: str,
    *,
    output: Path | None,
    seed: int | None,
    default: Path,
    resume: bool,
) -> tuple[RunConfig, Path]:
    """The run and its folder: one with a run to resume, else a new or empty one.

    A resumed run has the seed that it was begun with, unless ``seed`` names another.
    """
    if seed is not None:
        data = {**data, "seed": seed}
    run = RunConfig.from_dict(data, where)
    folder = output or Path(run.output or default)
    begun_with = seed_of(folder) if resume and data.get("seed") is None else None
    if begun_with is not None:
        run = RunConfig.from_dict({**data, "seed": begun_with}, where)
    if _is_first():  # the other processes look a little later, when the first has written there
        check_folder(folder, resume=resume)
    return run, folder


def _is_first() -> bool:
    """Whether this is the only process of the run, or the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def _print_once(text: str, *, err: bool = False) -> None:
    """Print a text from the first process alone."""
    if not _is_first():
        return
    if err:
        click.echo(text, err=True)
    else:
        say(text)


def _forced(data: Mapping[str, Any], force: bool) -> Mapping[str, Any]:
    """``data`` with ``--force`` in its ``risen`` section, where the callback reads it."""
    if not force or not isinstance(data.get("risen"), Mapping):
        return data
    return {**data, "risen": {**data["risen"], "force": True}}


def _as_text(ending: Ending, as_json: bool, more: Sequence[str] = ()) -> str:
    """The result of a run as the command prints it.

    :param more: further lines, which say what ``data`` has too.
    """
    return json_text(ending.data) if as_json else "\n".join([*ending.lines, *more])


def _ended(folder: Path, data: Mapping[str, Any], where: str, force: bool) -> Ending | None:
    """The ending of a run that has ended; None for one that goes on.

    :raises ConfigError: if the folder holds another run, unless forced.
    """
    for line in check_unchanged(folder, data, where, force=force):
        _print_once(f"risen: goes on with a change: {line}", err=True)
    ending = None if force else ending_of(folder)
    if ending is None:
        return None
    _print_once(f"risen: the run in {folder} has ended; there is nothing left to do", err=True)
    return ending


def _check_early(run: RunConfig) -> None:
    """Refuse missing files and unfit plugins before torch is loaded.

    :raises RisenError: naming the key.
    """
    for name, source in (("data", run.data), ("evaluation", run.evaluation)):
        if isinstance(source, DataSource) and source.path is not None:
            with located(name):
                check_there(Path(source.path))
    if run.risen is not None:
        from risen_plugin.run.assembly import assemble

        assemble(run.risen)


def _check(
    run: RunConfig, folder: Path, where: str, as_json: bool, note: str | None = None
) -> None:
    """Begin the run in a folder that is thrown away, up to its first step.

    :param note: as in :func:`_carry_out`.
    """
    with located(where):
        _check_early(run)
        from risen_plugin.commands.train.training import check, prepare

        with TemporaryDirectory(prefix="risen-check-") as scratch:
            checked = check(prepare(run, Path(scratch), quiet=True))
    if note is not None:
        _print_once(f"risen: {note}", err=True)
    data = {"output": str(folder), **asdict(checked)}
    lines = checked_lines(run, folder, checked)
    _print_once(json_text(data) if as_json else "\n".join(lines))


def _carry_out(
    run: RunConfig,
    folder: Path,
    data: Mapping[str, Any],
    where: str,
    *,
    resume: bool,
    quiet: bool,
    only_kept: bool = False,
    foretell: bool = False,
    note: str | None = None,
) -> tuple[Finished, Ending]:
    """Carry out the run under the lock of its folder, and write down how it ended.

    :param where: the file or command that the run was read from, for messages.
    :param foretell: whether to say at the start how long it will take.
    :param note: what to say of the run once it is found fit, on standard error.
    """
    with held(folder) if _is_first() else nullcontext():
        described = {**data, "seed": run.seed, "output": str(folder)}
        with located(where):
            _check_early(run)
            from risen_plugin.commands.train.training import foretelling, prepare, train
            from risen_plugin.training.outer_trainer import leave_processes

            prepared = prepare(run, folder, quiet=quiet, described=described)
        if note is not None:
            _print_once(f"risen: {note}", err=True)
        if _is_first():
            remove_ending(folder)
        try:
            if foretell and prepared.callback is not None:
                prepared.callback.run_state.at_start = foretelling(prepared)
            done = train(prepared, resume=resume, only_kept=only_kept)
        except KeyboardInterrupt:
            if any(folder.glob("checkpoint-*")):
                click.echo(f"risen: the run in {folder} goes on with --resume", err=True)
            raise
        del prepared  # it holds what was trained in the group of processes
        leave_processes()
        lines = phase_lines(done.phases)
        if done.is_kept or not only_kept:
            lines = closing_lines(
                folder,
                steps=done.steps,
                losses=done.losses,
                phases=done.phases,
                seconds=done.seconds,
                is_adapter=done.is_adapter,
                reinforces=run.risen is not None,
            )
        data = closing_data(
            folder,
            saved=done.is_kept or not only_kept,
            steps=done.steps,
            losses=done.losses,
            phases=done.phases,
            seconds=done.seconds,
            is_adapter=done.is_adapter,
        )
        ending = Ending(lines, done.is_kept, json.loads(json_text(data)))
        if done.is_main:
            save_ending(folder, ending)
        return done, ending
