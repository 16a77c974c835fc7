"""What plugin authors rely on: the hooks, their arguments, and that the docs are true."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import click
import pluggy
import pytest

from risen_plugin import hookimpl, hookspecs
from risen_plugin.plugins import KINDS, Plugins
from risen_plugin.testing import (
    REWARD_CHECKS,
    check_exporter,
    check_generator,
    check_reward,
    check_rollout,
    check_scheduler,
)

pytest_plugins = ["risen_plugin.testing"]

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
HOW_TO = (ROOT / "docs" / "how-to" / "write-a-plugin.md").read_text(encoding="utf-8")


def specified():
    """Each hook with its specification, as pluggy reads it."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return {name: hook.spec for name, hook in sorted(vars(manager.hook).items()) if hook.spec}


HOOKS = specified()


def section(hook):
    return re.search(rf"^## {hook}\n(.*?)(?=^## |\Z)", REFERENCE, flags=re.M | re.S).group(1)


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)


@pytest.fixture
def imported(monkeypatch):
    """Import code as a module of this name."""

    def run(code, name="documented"):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, name, "exec", dont_inherit=True), vars(module))
        return module

    return run


def test_the_hooks_are_those_that_were_released():
    """A difference breaks or extends what plugins rely on: say so in the changelog."""
    lines = [
        f"{name}({', '.join(spec.argnames)})" + (" historic" if spec.opts["historic"] else "")
        for name, spec in HOOKS.items()
    ]
    assert lines == (ROOT / "tests" / "contract" / "hooks.txt").read_text().splitlines()


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_reaches_a_plugin_with_all_its_arguments(hook, monkeypatch):
    monkeypatch.setenv("RISEN_STRICT_PLUGINS", "1")
    arguments = HOOKS[hook].argnames
    seen = []
    plugin = types.ModuleType("plugin")
    exec(f"def {hook}({', '.join(arguments)}): seen.append(locals())", {"seen": seen}, vars(plugin))
    hookimpl(getattr(plugin, hook))
    cli = click.Group("risen")
    plugins = Plugins(cli=cli)
    plugins.register(plugin, "plugin")
    if not HOOKS[hook].opts["historic"]:
        assert seen == []
        plugins.observe(hook, **{name: f"the {name}" for name in arguments})
    [given] = seen
    assert tuple(given) == arguments
    assert given.get("cli", cli) is cli
    assert callable(given.get("register", print))


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_says_what_its_arguments_mean_and_since_when(hook):
    doc = HOOKS[hook].function.__doc__
    for argument in HOOKS[hook].argnames:
        assert f":param {argument}:" in doc
    assert ".. versionadded:: " in doc
    assert "@hookimpl" in doc


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_documented_with_its_arguments(hook):
    row = re.search(rf"^\| \[`{hook}`\]\(#{hook}\) \|(.*?)\|", REFERENCE, flags=re.M)
    assert row is not None
    assert re.findall(r"`(\w+)`", row.group(1)) == list(HOOKS[hook].argnames)
    for argument in HOOKS[hook].argnames:
        assert re.search(rf"^- `{argument}\b", section(hook), flags=re.M), argument
    assert "Since 0." in section(hook)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_documented_example_of_each_hook_is_a_plugin(hook, imported, monkeypatch):
    monkeypatch.setenv("RISEN_STRICT_PLUGINS", "1")
    [example] = python_blocks(section(hook))
    cli = click.Group("risen")
    plugins = Plugins(cli=cli)
    plugins.register(imported(example), "documented")
    assert plugins.infos()[0].hooks == (hook,)


def test_the_documented_offers_keep_their_contracts(plugins, imported):
    for kind in KINDS:
        [example] = python_blocks(section(f"risen_register_{kind}s"))
        plugins.register(imported(example, kind), kind)
    check_reward(plugins.build("reward", "polite", {}))
    check_generator(plugins.build("generator", "sums", {}))
    check_scheduler(plugins.build("scheduler", "every", {"steps": 10}))
    check_exporter(plugins.build("exporter", "kept", {}))
    check_rollout(plugins.build("rollout", "repeating", {}))


def test_nothing_is_documented_that_does_not_exist():
    assert set(re.findall(r"^## (risen_\w+)", REFERENCE, flags=re.M)) == set(HOOKS)


@pytest.mark.parametrize("variable", ["DISABLED", "STRICT", "TRACE"])
def test_each_environment_variable_is_documented(variable):
    assert f"`RISEN_{variable}_PLUGINS=" in REFERENCE


def test_the_how_to_is_a_plugin_that_passes_its_own_tests(plugins, imported):
    module, written = python_blocks(HOW_TO)
    plugin = imported(module, "risen_mine")
    tests = imported(written, "test_risen_mine")
    for check in REWARD_CHECKS:
        tests.test_the_contract_of_a_reward_is_kept(check)
    tests.test_it_is_offered_by_name(plugins)
    assert plugins.find("reward", "vowels").factory is plugin.Vowels
