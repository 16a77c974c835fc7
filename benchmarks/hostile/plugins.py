"""Plugins that are broken, loud, rude or lie about themselves, as installed distributions."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from benchmarks.hostile.trying import Try

ROW = '{"prompt": "hi", "completion": "yes"}\n'
_UNPRINTABLE = """
class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__
"""
_NAMED = """
from risen_plugin import hookimpl

class Plain:
    def __call__(self, *, completions, **columns):
        return [1.0] * len(completions)

@hookimpl
def risen_register_rewards(register):
    register({name}, Plain)
"""
_HOOK = """
from risen_plugin import hookimpl
{before}
@hookimpl
def risen_register_rewards(register):
    register("mine", lambda: (lambda completions, **columns: [1.0] * len(completions)))
    {body}
"""
_FACTORY = """
from risen_plugin import hookimpl
{before}
@hookimpl
def risen_register_rewards(register):
    register("mine", {factory})
"""
_COMMAND = """
import click
from risen_plugin import hookimpl

@hookimpl
def risen_register_commands(cli):
    {body}
"""
_REWARD = """
from risen_plugin import hookimpl
{before}
def scores(completions, **columns):
    {body}
    return [1.0] * len(completions)

@hookimpl
def risen_register_rewards(register):
    register("mine", lambda: scores)
"""


def _hook(body: str, before: str = "") -> str:
    return _HOOK.format(body=body, before=before)


def _reward(body: str, before: str = "") -> str:
    return _REWARD.format(body=body, before=before)


def _factory(factory: str, before: str = "") -> str:
    return _FACTORY.format(factory=factory, before=textwrap.dedent(before))


PLUGINS: dict[str, str] = {
    # at import
    "import_value_error": "raise ValueError('broken')",
    "import_exit_0": "raise SystemExit(0)",
    "import_exit_3": "import sys; sys.exit(3)",
    "import_exit_text": "raise SystemExit('good bye')",
    "import_interrupt": "raise KeyboardInterrupt",
    "import_generator_exit": "raise GeneratorExit",
    "import_base_exception": "class Odd(BaseException): pass\nraise Odd('odd')",
    "import_cancelled": "import asyncio\nraise asyncio.CancelledError",
    "import_mute": _UNPRINTABLE + "raise Mute",
    "import_long_text": "raise ValueError('long ' * 300_000)",
    "import_lines": "raise ValueError('one\\ntwo\\x1b[31mred\\u202eback\\ud800')",
    "import_odd_class": "raise type('A\\x1b[2J', (Exception,), {})('x')",
    "import_syntax": "def broken(:",
    "import_nul": "x = 1\0",
    "import_not_utf8": "# \udcff\udcfe",
    "import_missing": "import no_such_module_anywhere",
    "import_recursion": "def down(): down()\ndown()",
    "import_memory": "raise MemoryError",
    "import_assertion": "assert False",
    "import_stop_iteration": "raise StopIteration('it')",
    "import_group": "raise ExceptionGroup('several', [ValueError('a'), TypeError('b')])",
    "import_base_group": "raise BaseExceptionGroup('several', [KeyboardInterrupt()])",
    # loud
    "loud": "print('hello')",
    "loud_descriptor": "import os\nos.write(1, b'hello\\n')",
    "loud_process": "import subprocess\nsubprocess.run(['echo', 'hello'])",
    "loud_at_exit": "import atexit\natexit.register(print, 'good bye')",
    "loud_thread": "import threading\nthreading.Timer(0.2, print, ['late']).start()",
    "loud_warning": "import warnings\nwarnings.warn('careful')",
    "loud_log": "import logging\nlogging.basicConfig()\nlogging.getLogger().error('log')",
    # meddling
    "no_stdout": "import sys\nsys.stdout = None",
    "closes_stdout": "import sys\nsys.stdout.close()",
    "other_stdout": "import io, sys\nsys.stdout = io.StringIO()",
    "changes_folder": "import os\nos.chdir('/')",
    "no_signals": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)",
    "no_modules": "import sys\nsys.modules[__name__] = None",
    "odd_module": "import sys\nclass M:\n    def __getattr__(self, n): raise SystemExit(4)\n"
    "sys.modules[__name__] = M()",
    "odd_dir": "def __dir__(): raise SystemExit(5)",
    "odd_attribute": "def __getattr__(name): raise KeyboardInterrupt",
    # hooks
    "hook_exit": _hook("raise SystemExit(0)"),
    "hook_interrupt": _hook("raise KeyboardInterrupt"),
    "hook_mute": _hook("raise Mute", _UNPRINTABLE),
    "hook_loud": _hook("print('registered')"),
    "hook_unknown": "from risen_plugin import hookimpl\n@hookimpl\ndef risen_make_tea(): pass",
    "hook_argument": "from risen_plugin import hookimpl\n@hookimpl\n"
    "def risen_register_rewards(register, sugar): pass",
    "hook_wrapper": "from risen_plugin import hookimpl\n@hookimpl(wrapper=True)\n"
    "def risen_register_rewards(register): yield",
    # names
    "name_escape": _NAMED.format(name=r'"a\x1b[31mb"'),
    "name_bidi": _NAMED.format(name=r'"a\u202eb"'),
    "name_surrogate": _NAMED.format(name=r'"a\ud800b"'),
    "name_lines": _NAMED.format(name=r'"a\nb"'),
    "name_nul": _NAMED.format(name=r'"a\0b"'),
    "name_number": _NAMED.format(name="7"),
    "name_empty": _NAMED.format(name="''"),
    "name_long": _NAMED.format(name="'n' * 100_000"),
    "name_odd_text": "class Odd(str):\n    def strip(self): raise SystemExit(6)\n"
    + _NAMED.format(name="Odd('mine')"),
    # factories
    "factory_none": _factory("None"),
    "factory_signature": _factory(
        "Odd()",
        """
        class Odd:
            @property
            def __signature__(self): raise SystemExit(7)
            def __call__(self): return 1
        """,
    ),
    "factory_doc": _factory("Odd", "class Odd:\n    'A \\x1b[31mdoc\\u202e\\ud800.'"),
    "factory_doc_number": _factory("Odd", "class Odd:\n    __doc__ = 7"),
    "factory_default": _factory(
        "make",
        """
        class Odd:
            def __repr__(self): raise SystemExit(8)
        def make(low=Odd()): return None
        """,
    ),
    "factory_annotation": _factory("make", "def make(low: 'print(1) or exit(9)' = 1): return None"),
    "factory_needs": _factory("Odd", "class Odd:\n    needs = ['a\\x1b[31m', 7, None]"),
    "factory_name": _factory("make", "def make(): return None\nmake.__name__ = 'x\\x1b[31m'"),
    "factory_exits": _factory("exit"),
    "factory_interrupts": _factory("make", "def make():\n    raise KeyboardInterrupt"),
    "factory_mute": _factory("make", _UNPRINTABLE + "def make():\n    raise Mute"),
    "factory_nothing": _factory("make", "def make():\n    return None"),
    # rewards
    "reward_loud": _reward("print('scored', completions)"),
    "reward_descriptor": _reward("import os; os.write(1, b'scored')"),
    "reward_exits": _reward("raise SystemExit(0)"),
    "reward_mute": _reward("raise Mute", _UNPRINTABLE),
    "reward_escape": _reward("raise ValueError('\\x1b[31m\\u202e\\ud800')"),
    "reward_generator_exit": _reward("raise GeneratorExit"),
    "reward_cancelled": _reward("import asyncio; raise asyncio.CancelledError"),
    "reward_odd_scores": _reward("return Odd()", "class Odd:\n    def __len__(self): exit(1)"),
    "reward_odd_number": _reward(
        "return [Odd()]", "class Odd(float):\n    def __float__(self): raise SystemExit(1)"
    ),
    "reward_text": _reward("return 'x\\x1b[31m'"),
    "reward_nan": _reward("return [float('nan')]"),
    # commands
    "command_exits": _COMMAND.format(body="raise SystemExit(0)"),
    "command_loud": _COMMAND.format(body="print('registered')"),
    "command_escape": _COMMAND.format(
        body="cli.add_command(click.Command('a\\x1b[31m\\u202e', help='b\\x1b[31m'))"
    ),
    "command_nothing": _COMMAND.format(body="cli.commands['nothing'] = None"),
    "command_clears": _COMMAND.format(body="cli.commands.clear()"),
    "command_number": _COMMAND.format(body="cli.commands[7] = click.Command('seven')"),
    "command_taken": _COMMAND.format(body="cli.commands['score'] = click.Command('score')"),
    "command_help": _COMMAND.format(body="cli.add_command(click.Command('x', help=7))"),
}

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
ODD_DISTRIBUTIONS: dict[str, dict[str, str]] = {
    "no_metadata": {"entry_points.txt": "[risen_plugin]\nmine = plain\n"},
    "empty_metadata": {"METADATA": "", "entry_points.txt": "[risen_plugin]\nmine = plain\n"},
    "escape_metadata": {
        "METADATA": "Metadata-Version: 2.1\nName: a\x1b[31m\u202e\nVersion: 1\x1b[2J\n",
        "entry_points.txt": "[risen_plugin]\nmine = plain\n",
    },
    "bytes_metadata": {
        "METADATA": "Metadata-Version: 2.1\nName: \udcff\udcfe\nVersion: \udcff\n",
        "entry_points.txt": "[risen_plugin]\nmine = plain\n",
    },
    "escape_entry": {
        "METADATA": METADATA.format(name="e"),
        "entry_points.txt": "[risen_plugin]\na\x1b[31m\u202e = plain\n",
    },
    "broken_entries": {
        "METADATA": METADATA.format(name="e"),
        "entry_points.txt": "risen_plugin]\nx\n= = =\n[risen_plugin]\n = plain\nq\n",
    },
    "bytes_entries": {
        "METADATA": METADATA.format(name="e"),
        "entry_points.txt": "[risen_plugin]\n\udcff = plain\n",
    },
    "odd_target": {
        "METADATA": METADATA.format(name="e"),
        "entry_points.txt": "[risen_plugin]\nmine = plain:a.b.c [x] ::\nother = ..\nthird =\n",
    },
}


def install(place: Path) -> dict[str, Path]:
    """Write each plugin under ``place``; returns its folder by its name."""
    folders = {}
    for name, source in PLUGINS.items():
        folder = folders[name] = place / name
        info = folder / f"{name}-0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(METADATA.format(name=name))
        group = "risen_plugin.commands" if name.startswith("command_") else "risen_plugin"
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = hostile_{name}\n")
        _write(folder / f"hostile_{name}.py", source)
    for name, files in ODD_DISTRIBUTIONS.items():
        folder = folders[name] = place / name
        info = folder / f"{name}-0.1.dist-info"
        info.mkdir(parents=True)
        _write(folder / "plain.py", _NAMED.format(name="'mine'"))
        for file, text in files.items():
            _write(info / file, text)
    for folder in folders.values():
        (folder / "rows.jsonl").write_text(ROW)
    return folders


def tries(name: str, folder: Path) -> Iterator[Try]:
    """What is asked with one plugin installed."""

    def one(*words: str, **more: object) -> Try:
        return Try(name, words, folder, [folder], **more)  # type: ignore[arg-type]

    yield one("plugins", "--json", json=True, codes=frozenset((0,)))
    yield one("plugins", "--all", codes=frozenset((0,)))
    yield one("--help", codes=frozenset((0,)))
    yield one("rewards", codes=frozenset((0,)))
    yield one("rewards", "--json", json=True, codes=frozenset((0,)))
    yield one("rewards", "mine")
    yield one("rewards", "mine", "--json", json=True)
    yield one("score", "mine", "rows.jsonl", "--json", json=True)
    yield one("score", "length", "rows.jsonl", "-o", "low=1", "-o", "high=9", "--json", json=True)
    if name.startswith("reward_"):
        yield one("audit", "mine", "--quick", "--json", json=True)
        place = f"hostile_{name}.py:scores"
        yield one("score", place, "rows.jsonl", "--summary", "--json", json=True)
    if name.startswith(("import_", "odd_")):
        yield one("score", f"hostile_{name}.py:scores", "rows.jsonl", codes=frozenset((2,)))
    yield one(
        starts="_risen_completion",
        variables={"_RISEN_COMPLETE": "bash_source"},
        codes=frozenset((0, 1)),
    )


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
