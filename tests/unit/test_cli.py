"""The ``risen`` command lists what there is and fails in one line."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from importlib import metadata
from typing import NamedTuple

import click
import pytest

from risen_plugin import __version__, hookimpl
from risen_plugin.cli import command_line, main
from risen_plugin.errors import ConfigError
from risen_plugin.plugins import Plugins


@dataclass(frozen=True)
class Band:
    """Full score inside ``low..high`` words.

    Less outside.

    :param low: fewest words.
    """

    low: int
    high: int = 80

    needs = ("answer",)


class Plugin:
    """A plugin that offers a reward and the commands of these tests."""

    @staticmethod
    @hookimpl
    def risen_register_rewards(register):
        register("length-band", Band)
        register("silent", lambda: None)

    @staticmethod
    @hookimpl
    def risen_phase_started(phase):
        """Sees a phase start."""

    @staticmethod
    @hookimpl
    def risen_register_commands(cli):
        @cli.command()
        def wrong():
            raise ConfigError("this is wrong; write that")

        @cli.command()
        def again():
            Plugins.load()

        @cli.command()
        def bug():
            raise KeyError("a bug")

        @cli.command()
        def interrupted():
            raise KeyboardInterrupt

        @cli.command()
        @click.option("--count", type=int)
        def counting(count):
            click.echo(count)


class Entry:
    """An installed plugin as importlib.metadata has it."""

    class dist:
        name, version = "risen-test", "1.2"

    def __init__(self, name, load):
        self.name, self.load = name, load


def fail_to_import():
    raise ImportError("No module named 'missing'")


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Besides the built-ins, one good and one broken plugin are installed."""
    for variable in ("DISABLED", "STRICT", "TRACE"):
        monkeypatch.delenv(f"RISEN_{variable}_PLUGINS", raising=False)
    entries = [Entry("good", lambda: Plugin), Entry("broken", fail_to_import)]
    monkeypatch.setattr(
        metadata, "entry_points", lambda group: entries if group == "risen_plugin" else []
    )
    log = logging.getLogger("risen_plugin")
    monkeypatch.setattr(log, "handlers", [])  # another test may have called main
    yield
    log.setLevel(logging.NOTSET)


@pytest.fixture
def risen(capsys):
    """Run a command line to its end."""

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            command_line().main(arguments, prog_name="risen")
        out, err = capsys.readouterr()
        return Result(caught.value.code, out, err)

    return run


class Result(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


def table(output):
    return [re.split(r"  +", line) for line in output.splitlines()]


def exit_code(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


# Listings


def test_plugins_says_what_each_offers_or_why_it_was_left_out(risen):
    result = risen("plugins")
    assert result.exit_code == 0
    assert table(result.stdout)[:3] == [
        ["plugin", "distribution", "version", "offers"],
        ["broken", "risen-test", "1.2", "left out: ImportError: No module named 'missing'"],
        [
            "good",
            "risen-test",
            "1.2",
            "rewards length-band, silent; commands wrong, again, bug, interrupted, counting; "
            "observes risen_phase_started",
        ],
    ]
    assert "--all shows them" in result.stdout


def test_plugins_all_shows_the_built_in_and_the_disabled(risen, monkeypatch):
    monkeypatch.setenv("RISEN_DISABLED_PLUGINS", "good")
    names = {row[0]: row[-1] for row in table(risen("plugins", "--all").stdout)}
    assert names["good"] == "left out: disabled"
    assert "built-in-rewards" in names
    assert "good" not in [row[0] for row in table(risen("plugins").stdout)]


def test_plugins_as_json(risen):
    infos = {info["name"]: info for info in json.loads(risen("plugins", "--json").stdout)}
    assert infos["broken"]["left_out"] == "ImportError: No module named 'missing'"
    assert infos["good"] == {
        "name": "good",
        "distribution": "risen-test",
        "version": "1.2",
        "offers": [
            {"kind": "reward", "name": "length-band"},
            {"kind": "reward", "name": "silent"},
        ],
        "commands": ["wrong", "again", "bug", "interrupted", "counting"],
        "hooks": ["risen_phase_started", "risen_register_commands", "risen_register_rewards"],
        "left_out": None,
    }


@pytest.mark.parametrize(
    ("listing", "built_in"),
    [
        ("rewards", "exact"),
        ("generators", "jsonl"),
        ("schedulers", "alternate"),
    ],
)
def test_each_kind_is_listed_with_its_origin(risen, listing, built_in):
    origins = {row[0]: row[1] for row in table(risen(listing).stdout) if len(row) > 1}
    assert origins[built_in] == f"risen-plugin {__version__}"
    [entry] = [e for e in json.loads(risen(listing, "--json").stdout) if e["name"] == built_in]
    assert (entry["distribution"], entry["version"]) == ("risen-plugin", __version__)
    assert entry["summary"]


def test_a_reward_is_listed_with_the_first_line_of_its_docstring(risen):
    rows = table(risen("rewards").stdout)
    assert ["length-band", "risen-test 1.2", "Full score inside `low..high` words."] in rows


def test_a_name_shows_the_options_with_types_defaults_and_meaning(risen):
    assert risen("rewards", "length-band").stdout == (
        "reward 'length-band' (risen-test 1.2)\n"
        "\n"
        "Full score inside `low..high` words.\n"
        "\n"
        "Less outside.\n"
        "\n"
        "needs the columns: answer\n"
        "\n"
        "option  type  default   meaning\n"
        "low     int   required  fewest words.\n"
        "high    int   80\n"
    )


def test_a_name_as_json_has_the_options(risen):
    data = json.loads(risen("rewards", "length-band", "--json").stdout)
    assert data["full_name"] == "good/length-band"
    assert data["needs"] == ["answer"]
    assert data["options"] == [
        {"name": "low", "type": "int", "default": None, "required": True}
        | {"meaning": "fewest words."},
        {"name": "high", "type": "int", "default": 80, "required": False, "meaning": ""},
    ]


def test_a_factory_without_options_or_docstring_is_shown_too(risen):
    assert risen("rewards", "silent").stdout == (
        "reward 'silent' (risen-test 1.2)\n\nIt takes no options.\n"
    )


# Errors


def test_a_place_in_code_is_described_like_an_offer(risen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "described.py").write_text(
        "class Band:\n"
        '    """A band.\n\n    :param low: fewest words.\n    """\n'
        "    def __init__(self, low: int = 2): ...\n"
        "    def __call__(self, *, completions, **columns): ...\n\n"
        "def ready(completions, **columns):\n    'Already there.'\n"
    )
    shown = risen("rewards", "described.py:Band").stdout
    assert "reward 'Band' (described.py)" in shown
    assert "low     int   2        fewest words." in shown
    shown = risen("rewards", "described.py:ready").stdout
    assert "Already there." in shown
    assert "It takes no options." in shown
    assert "did you mean 'Band'?" in risen("rewards", "described.py:Bnad").stderr


def test_an_unknown_name_is_one_line_with_the_near_miss(risen):
    result = risen("rewards", "lenght-band")
    assert result.exit_code == 2
    assert result.stderr.startswith("risen: no reward is called 'lenght-band'; did you mean")
    assert result.stderr.count("\n") == 1
    assert "'broken' (risen-test 1.2): ImportError" in result.stderr


def test_a_risen_error_shows_its_message_alone(risen):
    result = risen("wrong")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "risen: this is wrong; write that\n"


def test_debug_adds_the_traceback(risen):
    result = risen("--debug", "wrong")
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert result.stderr.endswith("risen: this is wrong; write that\n")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(KeyError, match="a bug"):
        command_line().main(["bug"])


def test_an_unknown_command_suggests_the_near_miss(risen):
    result = risen("reward")
    assert result.exit_code == 2
    assert "there is no command 'reward'; did you mean 'rewards'?" in result.stderr


def test_wrong_usage_of_a_command_is_one_line(risen):
    result = risen("counting", "--count", "many")
    assert result.exit_code == 2
    assert result.stderr.startswith("risen: invalid value for '--count': 'many' is not")
    assert result.stderr.endswith("; see risen counting --help\n")
    assert result.stderr.count("\n") == 1


def test_the_command_alone_shows_its_help(risen):
    assert "Usage: risen [OPTIONS] COMMAND" in risen().stderr


def test_an_interrupt_ends_with_130(risen):
    result = risen("interrupted")
    assert result.exit_code == 130
    assert result.stderr == "risen: interrupted\n"


# The process


def test_version_names_the_release(risen):
    assert __version__ in risen("--version").stdout


def test_main_exits_with_zero_after_a_listing(capsys):
    assert exit_code("rewards") == 0
    assert "length-band" in capsys.readouterr().out


LEFT_OUT = (
    "risen: plugin 'broken' (risen-test 1.2) is left out: ImportError: No module named 'missing'\n"
)


def test_main_warns_of_a_plugin_left_out_and_keeps_stdout_clean(capsys):
    assert exit_code("rewards", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)
    assert err == LEFT_OUT


def test_main_shows_a_warning_once_however_often_plugins_are_found(capsys):
    assert exit_code("again") == 0
    assert capsys.readouterr().err == LEFT_OUT


@pytest.mark.parametrize(("flags", "traceback"), [((), False), (("--debug",), True)])
def test_main_shows_a_strict_plugin_failure_as_a_message(monkeypatch, capsys, flags, traceback):
    monkeypatch.setenv("RISEN_STRICT_PLUGINS", "1")
    assert exit_code(*flags, "plugins") == 2
    err = capsys.readouterr().err
    assert err.endswith(
        "risen: plugin 'broken' (risen-test 1.2) cannot be used: "
        "ImportError: No module named 'missing'\n"
    )
    assert ("Traceback" in err) is traceback
