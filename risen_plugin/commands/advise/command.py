"""``risen advise``: measure, recommend, say why, write the run. Heavy parts load when it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.commands.advise.advice import Advice, Measurements, recommend
from risen_plugin.commands.advise.advised_run import drafted, run_of
from risen_plugin.commands.advise.machine import command_began, processes_started
from risen_plugin.commands.completing import files
from risen_plugin.commands.options import (
    Renamed,
    bytes_of,
    json_option,
    rewarded,
    seconds_of,
    shared,
)
from risen_plugin.commands.train.adaptation import in_one_phase, rewards_of, risen_section
from risen_plugin.commands.train.closing import advice_lines, measured_lines
from risen_plugin.commands.train.overrides import overridden
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.config import GuardConfig
from risen_plugin.errors import ConfigError
from risen_plugin.instructions.rows import check_probe
from risen_plugin.kit.files import try_writing, write_text
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text
from risen_plugin.record.run_record import writing

_EVALUATED = 100


@click.command("advise")
@click.argument("model")
@click.option(
    "--data",
    metavar="FILE",
    shell_complete=files,
    help="Rows to fine-tune on: JSON Lines, Parquet, ...",
)
@rewarded
@click.option(
    "--probe",
    metavar="FILE",
    shell_complete=files,
    help="Rows whose loss must not rise, as for adapt.",
)
@click.option(
    "--budget", default="120s", show_default=True, help="Time to measure in, such as 90s or 5m."
)
@click.option("--within", help="Time that following the advice may take, such as 10m or 2h.")
@click.option("--memory", help="Memory that it may take, such as 8GB; default: what is free.")
@click.option(
    "--steps", type=click.IntRange(min=1), default=40, show_default=True, help="GRPO steps wanted."
)
@json_option()
@click.option(
    "--output",
    "write",
    cls=Renamed,
    earlier=("--write",),
    type=click.Path(path_type=Path),
    help="Write the advised run here.",
)
@shared
def advise_command(
    *,
    model: str,
    data: str | None,
    instructions: str | None,
    rewards: tuple[str, ...],
    options: tuple[str, ...],
    generator: str,
    probe: str | None,
    budget: str,
    within: str | None,
    memory: str | None,
    steps: int,
    as_json: bool,
    write: Path | None,
    seed: int | None,
    pairs: tuple[str, ...],
    quiet: bool,
) -> None:
    """Measure what fine-tuning and RISEN would give MODEL, and recommend one, both or neither.

    Fine-tunes on a slice of the data and samples answers to some of the instructions, within the
    budget, and keeps nothing of either. --output saves the advised run, which `risen train` takes.
    """
    started = command_began()
    if processes_started() > 1:
        raise ConfigError("risen advise measures in one process; start it without torchrun")
    budget_s = seconds_of("--budget", budget)
    within_s = None if within is None else seconds_of("--within", within)
    available = None if memory is None else bytes_of("--memory", memory)
    if write is not None:
        _check_write(write)
    if options and not rewards:
        raise ConfigError(f"-o {options[0]} is an option of a reward, and no reward is named")
    if probe is not None:
        check_probe(probe, GuardConfig.probe_rows)
    by = rewards_of(rewards, options) if rewards else []
    section = _section(instructions, by, generator, steps, probe)
    drawn = drafted(model, data=data, risen=section, seed=seed or 0)
    draft = _with_evaluation(overridden(drawn, pairs))
    if draft.get("data") is None and draft.get("risen") is None:
        raise ConfigError(
            "there is nothing to give advice on; give --data FILE, or --instructions FILE with "
            "--rewards, or both"
        )
    from risen_plugin.commands.advise.measuring import Measuring

    measuring = Measuring(
        draft,
        budget_s,
        available=available,
        started=started,
        within_s=within_s,
        risen_steps=steps,
        announce=(lambda stage: None)
        if quiet
        else (lambda stage: click.echo(f"risen: {stage}", err=True)),
    )
    measured = measuring.measure()
    advice = recommend(measured)
    run = run_of(advice, measuring.draft)
    if write is not None and run is not None:
        _write(write, run, advice)
    if as_json:
        say(json_text(_data(measured, advice, run)))
        return
    click.echo("\n".join([*measured_lines(measured), "", *advice_lines(advice)]))
    if write is not None:
        written = run is not None
        click.echo(f"next: risen train {write}" if written else f"{write} was not written")


def _with_evaluation(draft: Mapping[str, Any]) -> Mapping[str, Any]:
    """The draft with a part of its data to evaluate on, where it names no evaluation rows."""
    if draft.get("data") is None or draft.get("evaluation") is not None:
        return draft
    source = RunConfig.from_dict({k: draft[k] for k in ("model", "data")}, "risen advise").data
    assert source is not None
    rows = len(open_source(source.path, source.dataset, source.split, None))
    rows = min(rows, source.limit or rows)
    return {**draft, "evaluation": min(_EVALUATED, max(1, rows // 10))}


def _check_write(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"--output '{path}' is a folder; name a file, such as run.yaml")
    try:
        try_writing(path.parent)
    except OSError as error:
        raise ConfigError(f"cannot write --output '{path}': {error.strerror}") from error


def _section(
    instructions: str | None,
    rewards: list[dict[str, Any]],
    generator: str,
    steps: int,
    probe: str | None,
) -> dict[str, Any] | None:
    if (instructions is None) != (not rewards):
        lacking = "--rewards" if instructions is not None else "--instructions FILE"
        raise ConfigError(f"instructions and rewards go together; give {lacking} too")
    if instructions is None:
        return None
    scheduler = in_one_phase(steps)
    return risen_section(
        instructions, rewards, generator=generator, scheduler=scheduler, probe=probe
    )


def _write(path: Path, run: Mapping[str, Any], advice: Advice) -> None:
    import yaml

    head = "".join(f"# {line}\n" for line in advice_lines(advice))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, head + yaml.safe_dump(dict(run), sort_keys=False, allow_unicode=True))


def _data(measured: Measurements, advice: Advice, run: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "advice": {**dataclasses.asdict(advice), "in_words": advice.in_words},
        "measurements": dataclasses.asdict(measured),
        "run": run,
    }
