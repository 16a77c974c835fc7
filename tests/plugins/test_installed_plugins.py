"""Plugins as strangers ship them: built, installed and run in a process of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RISEN = "from risen_plugin.cli import main; main()"

DISTRIBUTIONS = {
    "good": """
import click
from risen_plugin import hookimpl

class Words:
    "Score the words."
    def __init__(self, low: int): ...
    def __call__(self, *, completions, **columns):
        return [1.0 for _ in completions]

@hookimpl
def risen_register_rewards(register):
    register("words", Words)

@hookimpl
def risen_register_commands(cli):
    cli.add_command(click.Command("greet", callback=lambda: click.echo("hello")))
""",
    "broken": """
import a_library_that_nobody_has
""",
    "raising": """
import click
from risen_plugin import hookimpl

@hookimpl
def risen_register_commands(cli):
    cli.add_command(click.Command("half"))

@hookimpl
def risen_register_rewards(register):
    register("half", dict)
    raise RuntimeError("halfway")
""",
    "clashing": """
from risen_plugin import hookimpl

@hookimpl
def risen_register_rewards(register):
    register("words", dict)
""",
    "aaa": """
import click
from risen_plugin import hookimpl

@hookimpl
def risen_register_commands(cli):
    cli.add_command(click.Command("export", callback=lambda: click.echo("mine now")))
""",
    "outdated": """
from risen_plugin import hookimpl

@hookimpl
def risen_phase_ended(phase, trainer): ...
""",
    "future": """
from risen_plugin import hookimpl

@hookimpl
def risen_register_judges(register): ...
""",
    "noisy": """
from risen_plugin import hookimpl

@hookimpl
def risen_phase_started(phase):
    raise ValueError("an onlooker fell over")
""",
}

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "risen-{name}"
version = "1.2"
[project.entry-points.risen_plugin]
{name} = "risen_fixture_{name}"
[tool.setuptools]
py-modules = ["risen_fixture_{name}"]
"""

OURS = ("risen-length", "risen-judge", "risen-reasoning-gym")

LEFT_OUT = {
    "aaa": "it replaces the command 'export', which exists already",
    "broken": "ModuleNotFoundError: No module named 'a_library_that_nobody_has'",
    "raising": "RuntimeError: halfway",
    "outdated": "its 'risen_phase_ended' asks for the argument 'trainer', which risen-plugin",
    "future": "it implements the hook 'risen_register_judges', which risen-plugin",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which all the distributions, and our own, were installed by pip."""
    sources = tmp_path_factory.mktemp("sources")
    for name, code in DISTRIBUTIONS.items():
        (sources / name).mkdir()
        (sources / name / "pyproject.toml").write_text(PYPROJECT.format(name=name))
        (sources / name / f"risen_fixture_{name}.py").write_text(code)
    for name in OURS:
        shutil.copytree(
            ROOT / "plugins" / name,
            sources / name,
            ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
        )
    target = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet"]
    folders = [str(folder) for folder in sorted(sources.iterdir())]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), *folders],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    return target


@pytest.fixture
def python(site, tmp_path):
    """Run a fresh interpreter that sees the installed plugins."""

    def run(*arguments, **variables):
        clean = {name: text for name, text in os.environ.items() if not name.startswith("RISEN_")}
        path = os.pathsep.join(map(str, (site, ROOT, ROOT / "export")))
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**clean, "PYTHONPATH": path, **variables},
        )

    return run


@pytest.fixture
def risen(python):
    return lambda *arguments, **variables: python("-c", RISEN, *arguments, **variables)


def test_each_misbehaving_plugin_is_left_out_with_its_reason(risen):
    done = risen("plugins", "--json")
    assert done.returncode == 0
    infos = {info["name"]: info for info in json.loads(done.stdout)}
    for name in DISTRIBUTIONS:
        info = infos[name]
        assert (info["distribution"], info["version"]) == (f"risen-{name}", "1.2")
        assert (info["left_out"] or "").startswith(LEFT_OUT.get(name, "")), name
        assert bool(info["left_out"]) is (name in LEFT_OUT), name


def test_each_is_warned_of_in_one_line_on_stderr(risen):
    lines = risen("rewards").stderr.splitlines()
    for name, reason in LEFT_OUT.items():
        beginning = f"risen: plugin '{name}' (risen-{name} 1.2) is left out: {reason}"
        assert len([line for line in lines if line.startswith(beginning)]) == 1
    assert not [line for line in lines if line.startswith("Traceback")]


def test_the_good_ones_work_beside_them(risen):
    assert risen("greet").stdout == "hello\n"
    shown = risen("rewards", "good/words")
    assert shown.stdout.startswith("reward 'words' (risen-good 1.2)\n\nScore the words.\n")


def test_a_name_of_two_plugins_must_be_written_in_full(risen):
    done = risen("rewards", "words")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "risen: reward 'words' is offered more than once; "
        "write 'clashing/words' (risen-clashing 1.2) and 'good/words' (risen-good 1.2)"
    )


def test_nothing_stays_of_a_plugin_that_failed_halfway(risen):
    assert "half" not in [offer["name"] for offer in json.loads(risen("rewards", "--json").stdout)]
    assert "there is no command 'half'" in risen("half").stderr
    assert "Left out: " in risen("rewards", "half").stderr


def test_disabled_plugins_are_silent(risen):
    done = risen("rewards", RISEN_DISABLED_PLUGINS=",".join(LEFT_OUT))
    assert done.stderr == ""


def test_strict_plugins_stop_the_command(risen):
    done = risen("rewards", RISEN_STRICT_PLUGINS="1", RISEN_DISABLED_PLUGINS="aaa,future")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("risen: plugin 'broken' (risen-broken 1.2) cannot be used: ")


def test_an_onlooker_that_fails_does_not_hurt_the_others(python):
    code = """
from risen_plugin.plugins import Plugins
plugins = Plugins.load()
for _ in range(3):
    plugins.observe("risen_phase_started", phase=None, progress=None)
print("the run goes on")
"""
    done = python("-c", code)
    assert done.stdout == "the run goes on\n"
    assert done.stderr.count("ValueError: an onlooker fell over") == 1
    assert "plugin 'noisy' (risen-noisy 1.2) failed in risen_phase_started" in done.stderr


# The template


def test_the_template_is_offered_with_its_origin(risen):
    done = risen("rewards", "length-band")
    assert done.returncode == 0
    assert done.stdout.startswith("reward 'length-band' (risen-length 0.1.0)\n")
    assert [line.split()[:3] for line in done.stdout.splitlines()[-3:]] == [
        ["low", "int", "required"],
        ["high", "int", "required"],
        ["slack", "int", "10"],
    ]


def test_a_wrong_option_of_the_template_is_explained(python):
    code = """
from risen_plugin.plugins import Plugins
Plugins.load().build("reward", "length-band", {"lo": 20, "high": 80})
"""
    assert python("-c", code).stderr.splitlines()[-1] == (
        "risen_plugin.errors.ConfigError: reward 'length-band' (risen-length 0.1.0) has no option "
        "'lo'; did you mean 'low'? It takes: low, high, slack"
    )


def test_the_tests_of_the_template_pass_once_installed(python):
    tests = ROOT / "plugins" / "risen-length" / "tests"
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tests))
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


# The others


@pytest.mark.parametrize(
    ("listing", "name", "origin"),
    [
        ("rewards", "judge", "reward 'judge' (risen-judge 0.1.0)"),
        ("rewards", "reasoning-gym", "reward 'reasoning-gym' (risen-reasoning-gym 0.1.0)"),
        ("generators", "reasoning-gym", "generator 'reasoning-gym' (risen-reasoning-gym 0.1.0)"),
    ],
)
def test_the_others_are_offered_without_what_they_need(risen, listing, name, origin):
    """What they depend on is loaded when they are used; a listing must not wait for it."""
    done = risen(listing, name)
    assert done.stdout.startswith(f"{origin}\n"), done.stderr


@pytest.mark.parametrize(
    ("needed", "name"), [(None, "risen-judge"), ("reasoning_gym", "risen-reasoning-gym")]
)
def test_the_tests_of_the_others_pass_once_installed(python, needed, name):
    if needed is not None:
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    done = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull),
        *("--import-mode=importlib", "-m", "not slow", str(ROOT / "plugins" / name / "tests")),
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
