"""A run loads what it uses: no command, nothing of the exporter, and few modules of our own."""

from __future__ import annotations

import json
from typing import Any

import pytest

MOST_IMPORTED = 30
MOST_BUILT = 85
BUILD = """
from risen_plugin import RisenCallback

def short(completions, **columns):
    return [float(len(text) < 9) for text in completions]

def rows(*, count, seed, **context):
    return [{"prompt": "Say something."}] * count

RisenCallback(rewards=[short], generator=rows)
"""
LIST = """
import json, sys
names = sorted(n for n in sys.modules if n.split(".")[0] in ("risen_plugin", "risen_export"))
print(json.dumps(names))
"""


@pytest.fixture
def loaded(fresh_python: Any) -> Any:
    """The modules of ours that a piece of code loads in a fresh interpreter."""

    def after(code: str) -> list[str]:
        names: list[str] = json.loads(fresh_python(code + LIST).stdout.splitlines()[-1])
        return names

    return after


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_building_a_callback_loads_no_command_and_nothing_of_the_exporter(loaded):
    modules = loaded(BUILD)
    assert "risen_plugin.run.assembly" in modules
    assert [name for name in modules if is_in(name, "risen_plugin.commands")] == []
    assert [name for name in modules if is_in(name, "risen_export")] == []
    assert len(modules) <= MOST_BUILT, modules


def test_importing_the_callback_loads_few_modules(loaded):
    modules = loaded("import risen_plugin.callback")
    assert len(modules) <= MOST_IMPORTED, modules


def test_listing_what_is_offered_makes_none_of_it(loaded):
    modules = loaded(
        "from risen_plugin.plugins import Plugins\n"
        "assert Plugins.load().find('generator', 'evolve').origin\n"
    )
    assert "risen_plugin.builtin.generators" in modules
    assert "risen_plugin.builtin.generators.evolve" not in modules


def test_a_command_line_has_the_commands_of_everybody(fresh_python):
    listed = fresh_python(
        "from risen_plugin.cli import command_line; print(*command_line().commands)"
    ).stdout.split()
    ours = {
        "train",
        "adapt",
        "advise",
        "score",
        "rescore",
        "audit",
        "simulate",
        "report",
        "new",
        "env",
    }
    assert ours | {"unsolved", "export", "generate", "demo"} <= set(listed)


def test_completing_a_name_loads_no_torch(fresh_python):
    script = (
        "import os, sys\n"
        "os.environ |= {'_RISEN_COMPLETE': 'bash_complete', 'COMP_WORDS': 'risen rewards le', "
        "'COMP_CWORD': '2'}\n"
        "from risen_plugin.cli import main\n"
        "try:\n    main([])\nexcept SystemExit:\n    pass\n"
        "print('loaded:', *[n for n in ('torch', 'transformers', 'datasets') if n in sys.modules])"
    )
    *offered, loaded = fresh_python(script).stdout.splitlines()
    assert offered == ["plain,length"]
    assert loaded == "loaded:"
