"""``risen train`` and ``risen adapt``. What is heavy is imported when a command runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from risen_plugin.changes import differences
from risen_plugin.errors import ConfigError, located, near_miss
from risen_plugin.hookspecs import hookimpl
from risen_plugin.run_lock import holder_of
from risen_plugin.runs.adaptation import adaptation, in_one_phase, rewards_of, risen_section
from risen_plugin.runs.advise import advise_command
from risen_plugin.runs.command_options import rewarded, shared
from risen_plugin.runs.overrides import overridden
from risen_plugin.runs.run_config import RunConfig, read_run
from risen_plugin.runs.told import closing, phase_lines

_NOT_KEPT = 1
_OF_ONE_START = ("output", "seed", "risen")  # risen is compared where its parts are known


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
@shared
def train_command(
    *,
    run_yaml: Path,
    output: Path | None,
    resume: bool,
    force: bool,
    seed: int | None,
    pairs: tuple[str, ...],
    quiet: bool,
) -> None:
    """Fine-tune, with RISEN phases or without, as RUN.yaml says, and save the model.

    RUN.yaml names a model, and data to fine-tune on or a risen section or both. Everything
    in it is checked before a model is loaded. The folder of the run is --output, or
    `output` in the file, or out/ and the file's name.
    """
    data = overridden(read_run(run_yaml), pairs)
    if force and isinstance(data.get("risen"), Mapping):
        data = {**data, "risen": {**data["risen"], "force": True}}
    default = Path("out") / run_yaml.stem
    run, folder = _read(
        data, str(run_yaml), output=output, seed=seed, default=default, resume=resume
    )
    if resume and not force:
        _check_unchanged(folder, data, str(run_yaml))
    _carry_out(run, folder, data, str(run_yaml), resume=resume, quiet=quiet)


@click.command("adapt")
@click.argument("model")
@rewarded
@click.option("--output", type=click.Path(path_type=Path), help="A new folder for the adapter.")
@click.option(
    "--steps", type=click.IntRange(min=1), default=40, show_default=True, help="GRPO steps."
)
@click.option("--probe", metavar="FILE", help="Rows whose loss must not rise; see below.")
@click.option("--keep-anyway", is_flag=True, help="Save the adapter whatever the guard says.")
@click.option("--resume", is_flag=True, help="Go on with what was interrupted.")
@shared
@click.pass_context
def adapt_command(
    context: click.Context,
    *,
    model: str,
    instructions: str | None,
    rewards: tuple[str, ...],
    options: tuple[str, ...],
    generator: str,
    output: Path | None,
    steps: int,
    probe: str | None,
    keep_anyway: bool,
    resume: bool,
    seed: int | None,
    pairs: tuple[str, ...],
    quiet: bool,
) -> None:
    """Reinforce MODEL on instructions alone, and save a new adapter if that pays.

    MODEL is a folder or hub id; its weights stay as they are. Some of the instructions are held out
    for the guard. Without --probe, retention is measured on what MODEL itself answers: to the plain
    `query` of the held-out rows, or, where they have none, those answers that follow already.

    Ends with exit code 1 if the guard drops the phase and --keep-anyway is not given.
    """
    if instructions is None:
        raise ConfigError("there is nothing to learn from; give --instructions FILE")
    section = risen_section(
        instructions,
        rewards_of(rewards, options),
        generator=generator,
        scheduler=in_one_phase(steps),
        probe=probe,
    )
    data = overridden(adaptation(model, section, seed=seed or 0, keep_anyway=keep_anyway), pairs)
    default = Path("out") / f"{Path(model).name}-adapter"
    run, folder = _read(
        data, "risen adapt", output=output, seed=seed, default=default, resume=resume
    )
    if run.lora is None:
        raise ConfigError("risen adapt trains an adapter; give lora settings, or use risen train")
    if _carry_out(run, folder, data, "risen adapt", resume=resume, quiet=quiet, only_kept=True):
        return
    dropped = folder / "risen" / "phase-001" / "dropped"
    if not keep_anyway or not dropped.is_dir():
        click.echo(f"nothing was saved but the record in {folder / 'risen'}")
        context.exit(_NOT_KEPT)
    for file in dropped.iterdir():
        shutil.copy2(file, folder / file.name)
    click.echo(f"saved the adapter to {folder} all the same")
    click.echo(f"next: risen export {folder} {folder}-bundle")


def _read(
    data: Mapping[str, Any],
    where: str,
    *,
    output: Path | None,
    seed: int | None,
    default: Path,
    resume: bool,
) -> tuple[RunConfig, Path]:
    """The run and its folder, which must be there to resume and must hold nothing otherwise."""
    if seed is not None:
        data = {**data, "seed": seed}
    run = RunConfig.from_dict(data, where)
    folder = output or Path(run.output or default)
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the others come a little later
        _check_folder(folder, resume=resume)
    return run, folder


def _check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that another run has, that takes no files, or that does not fit resume."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder with --output")
    holder = holder_of(folder)
    if holder is not None:
        raise ConfigError(
            f"another run writes to {folder} ({holder}); wait until it has ended, or name another "
            "folder with --output"
        )
    is_used = folder.is_dir() and any(folder.iterdir())
    if is_used and not resume:
        raise ConfigError(
            f"{folder} is in use; --resume goes on with the run in it, --output names another"
        )
    if resume and not is_used:
        beside = [c.name for c in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ConfigError(f"there is no run to resume in {folder}{near_miss(folder.name, beside)}")
    try:
        _try_writing(folder)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {folder}: {error.strerror}; name another folder with --output"
        ) from error


def _try_writing(folder: Path) -> None:
    """Make the folder and a file in it, and leave nothing behind.

    :raises OSError: if that cannot be done; what permissions say is not always so.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        for place in missing:
            place.rmdir()


def _check_unchanged(folder: Path, data: Mapping[str, Any], where: str) -> None:
    """Refuse to go on with a run that was begun with something else; it keeps its own run.yaml."""
    kept = folder / "run.yaml"
    if not kept.is_file():
        return
    before = {name: value for name, value in read_run(kept).items() if name not in _OF_ONE_START}
    changed = differences(before, {name: data.get(name) for name in before})
    if changed:
        raise ConfigError(
            f"{where} is another run than the one in {folder}: {'; '.join(changed)}; resume with "
            f"{kept}, name another folder with --output, or accept the change with --force"
        )


def _carry_out(
    run: RunConfig,
    folder: Path,
    data: Mapping[str, Any],
    where: str,
    *,
    resume: bool,
    quiet: bool,
    only_kept: bool = False,
) -> bool:
    """Carry the run out and say what came of it; whether a phase was kept.

    :param where: what the run was read from, for messages.
    """
    described = {**data, "seed": run.seed, "output": str(folder)}
    with located(where):
        if run.risen is not None:
            from risen_plugin.assembly import assemble

            assemble(run.risen)  # for its errors, which need not wait for torch to be loaded
        from risen_plugin.runs.training import prepare, train

        prepared = prepare(run, folder, quiet=quiet, described=described)
    try:
        done = train(prepared, resume=resume, only_kept=only_kept)
    except KeyboardInterrupt:
        if any(folder.glob("checkpoint-*")):
            click.echo(f"risen: the run in {folder} goes on with --resume", err=True)
        raise
    kept = any(phase.accepted for phase in done.phases)
    lines = phase_lines(done.phases)
    if kept or not only_kept:
        lines = closing(
            folder,
            steps=done.steps,
            losses=done.losses,
            phases=done.phases,
            seconds=done.seconds,
            is_adapter=done.is_adapter,
        )
    if done.is_main:
        click.echo("\n".join(lines))
    return kept
