"""The rooms of the house: few doors, every room in the contract, and no room beside it."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "risen_plugin"
MOST_DOORS = 9
MOST_LINES = 20
HEAVY = {"cli", "testing", "commands", "callback", "run", "phases", "training"}
"""What may load torch; of some of it the contract names the parts that may not."""


@pytest.fixture(scope="module")
def contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def layers(contracts: configparser.ConfigParser) -> list[str]:
    return contracts["importlinter:contract:layers"]["layers"].split("\n")[1:]


def rooms(contracts: configparser.ConfigParser) -> list[str]:
    return [name.strip() for line in layers(contracts) for name in line.split("|")]


def on_disk() -> tuple[list[str], list[str]]:
    """The names of the modules at the top, and of the folders with modules in them."""
    doors = [path.stem for path in HOUSE.glob("*.py")]
    folders = [path.name for path in HOUSE.iterdir() if any(path.glob("*.py"))]
    return doors, folders


def test_a_stranger_meets_few_doors() -> None:
    assert len(on_disk()[0]) <= MOST_DOORS


def test_the_contract_names_every_room_once_in_few_lines(
    contracts: configparser.ConfigParser,
) -> None:
    doors, folders = on_disk()
    assert sorted(rooms(contracts)) == sorted({*doors, *folders} - {"__init__"})
    assert len(layers(contracts)) <= MOST_LINES


def test_every_room_that_decides_is_held_to_load_nothing_heavy(
    contracts: configparser.ConfigParser,
) -> None:
    light = contracts["importlinter:contract:light"]["source_modules"].split()
    assert {f"risen_plugin.{name}" for name in set(rooms(contracts)) - HEAVY} <= set(light)


@pytest.mark.parametrize(
    ("planted", "is_held"),
    [(None, True), ("attic.py", False), ("attic/__init__.py", False), ("run/attic.py", True)],
)
def test_a_module_in_no_room_breaks_the_contract(
    planted: str | None, is_held: bool, contracts: configparser.ConfigParser, tmp_path: Path
) -> None:
    house = tmp_path / "risen_plugin"
    for name in rooms(contracts):  # the contract looks at names; empty modules are quick to read
        (house / name).mkdir(parents=True)
        (house / name / "__init__.py").touch()
    (house / "__init__.py").touch()
    if planted is not None:
        (house / planted).parent.mkdir(exist_ok=True)
        (house / planted).touch()
    contract = dict(contracts["importlinter:contract:layers"])
    config = configparser.ConfigParser()
    config["importlinter"] = {"root_package": "risen_plugin"}
    config["importlinter:contract:layers"] = contract
    with (tmp_path / "setup.cfg").open("w", encoding="utf-8") as file:
        config.write(file)
    lint = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache", "--config", "setup.cfg"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is is_held, done.stdout + done.stderr
    if not is_held:
        assert "attic" in done.stdout
