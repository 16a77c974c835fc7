"""Plugins offer, and whoever misbehaves is left out whole with one line."""

from __future__ import annotations

import logging
import signal
import types
from importlib import metadata

import click
import pytest

from risen_plugin import __version__, hookimpl, hookspec
from risen_plugin.errors import ConfigError, PluginError
from risen_plugin.plugins import KINDS, Offer, Plugins, registry
from risen_plugin.plugins.registry import COMMANDS, OFFERS

pytest_plugins = ["risen_plugin.testing"]


class Echo:
    """Gives back what it was made with."""

    def __init__(self, **options):
        self.options = options


def a_plugin(**hooks):
    """A module-like plugin with these hooks, each given as a plain function."""
    plugin = types.ModuleType("a_plugin")
    for name, hook in hooks.items():
        setattr(plugin, name, hookimpl(hook))
    return plugin


def offering(*names, kind="reward"):
    def hook(register):
        for name in names:
            register(name, Echo)

    return a_plugin(**{f"risen_register_{kind}s": hook})


def the_reason(plugins, name):
    [info] = [info for info in plugins.infos() if info.name == name]
    assert info.left_out is not None
    assert not info.offers
    return info.left_out


# Offering and finding


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_offered_through_its_hook(plugins, kind):
    plugins.register(offering("echo", kind=kind), "mine", "risen-mine", "1.2")
    [offer] = plugins.offers(kind)
    assert offer == Offer(kind, "echo", Echo, "mine", "risen-mine", "1.2")
    assert offer.label == f"{kind} 'echo' (risen-mine 1.2)"
    assert offer.full_name == "mine/echo"
    assert not any(plugins.offers(other) for other in KINDS if other != kind)


def test_a_plugin_that_was_never_installed_goes_by_its_name(plugins):
    plugins.register(offering("echo"), "notebook")
    assert plugins.find("reward", "echo").label == "reward 'echo' (notebook)"


def test_a_class_with_static_hooks_is_a_plugin(plugins):
    class Local:
        @staticmethod
        @hookimpl
        def risen_register_rewards(register):
            register("echo", Echo)

    assert plugins.register(Local, "local")
    assert plugins.find("reward", "echo").factory is Echo


@pytest.mark.parametrize("name", ["echo", "mine/echo", "risen-mine/echo"])
def test_a_name_is_found_bare_or_with_its_plugin_or_distribution(plugins, name):
    plugins.register(offering("echo"), "mine", "risen-mine", "1.2")
    assert plugins.find("reward", name).full_name == "mine/echo"


def test_a_found_name_is_built_with_its_options(plugins):
    plugins.register(offering("echo"), "mine")
    assert plugins.build("reward", "echo", {"low": 1}).options == {"low": 1}


def test_an_unknown_name_suggests_the_near_miss(plugins):
    plugins.register(offering("length-band", "echo"), "mine")
    with pytest.raises(ConfigError) as caught:
        plugins.find("reward", "lenght-band")
    assert str(caught.value) == (
        "no reward is called 'lenght-band'; did you mean 'length-band'? Offered: echo, length-band"
    )


def test_an_unknown_name_lists_the_plugins_left_out(plugins):
    plugins.register(a_plugin(risen_register_rewards=lambda register: 1 / 0), "bad", "dist", "3")
    with pytest.raises(ConfigError) as caught:
        plugins.find("reward", "echo")
    assert str(caught.value) == (
        "no reward is called 'echo'. Offered: none. "
        "Left out: 'bad' (dist 3): ZeroDivisionError: division by zero"
    )


def test_a_name_offered_twice_needs_its_plugin(plugins):
    plugins.register(offering("echo"), "one", "dist-one", "1")
    plugins.register(offering("echo"), "two", "dist-two", "2")
    with pytest.raises(ConfigError) as caught:
        plugins.find("reward", "echo")
    assert str(caught.value) == (
        "reward 'echo' is offered more than once; "
        "write 'one/echo' (dist-one 1) and 'two/echo' (dist-two 2)"
    )
    assert plugins.find("reward", "two/echo").plugin == "two"


# Leaving out


def raises_halfway(register):
    register("first", Echo)
    raise RuntimeError("no\nmore")


LEFT_OUT = {
    "raising": (
        lambda: a_plugin(risen_register_rewards=raises_halfway),
        "RuntimeError: no more",
    ),
    "future": (
        lambda: a_plugin(risen_register_dreams=lambda register: None),
        f"it implements the hook 'risen_register_dreams', which risen-plugin {__version__} does "
        "not have; a newer risen-plugin is needed, or the name is misspelt",
    ),
    "outdated": (
        lambda: a_plugin(risen_phase_ended=lambda phase, model: None),
        f"its 'risen_phase_ended' asks for the argument 'model', which risen-plugin {__version__} "
        "does not pass; it passes phase, progress, metrics",
    ),
    "wrapping": (
        lambda: types.SimpleNamespace(risen_phase_started=hookimpl(wrapper=True)(a_wrapper)),
        "its 'risen_phase_started' is a wrapper, which no hook here supports",
    ),
    "twice": (lambda: offering("a", "a"), "ValueError: it offers reward 'a' twice"),
    "nameless": (lambda: offering(""), "ValueError: '' cannot be the name of a reward"),
    "slashed": (lambda: offering("a/b"), "ValueError: 'a/b' cannot be the name of a reward"),
    "uncallable": (
        lambda: a_plugin(risen_register_rewards=lambda register: register("a", 1)),
        "TypeError: what it offers as reward 'a' cannot be called",
    ),
}


def a_wrapper():
    yield


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_misbehaving_plugin_is_left_out_with_one_line(plugins, caplog, name):
    make, reason = LEFT_OUT[name]
    assert not plugins.register(make(), name, "dist", "1.2")
    assert the_reason(plugins, name) == reason
    assert caplog.messages == [f"plugin '{name}' (dist 1.2) is left out: {reason}"]
    assert caplog.records[0].name == "risen_plugin"


def test_the_others_work_on_beside_those_left_out(plugins):
    for name, (make, _) in LEFT_OUT.items():
        plugins.register(make(), name)
    assert plugins.register(offering("echo"), "good")
    assert [offer.full_name for offer in plugins.offers("reward")] == ["good/echo"]


def test_what_a_plugin_left_out_had_offered_and_hooked_is_rolled_back(plugins):
    seen = []
    hooks = {
        "risen_phase_started": lambda phase: seen.append(phase),
        "risen_register_generators": lambda register: register("rows", Echo),
        "risen_register_rewards": raises_halfway,
    }
    plugins.register(a_plugin(**hooks), "bad")
    plugins.observe("risen_phase_started", phase="now", progress=None)
    assert (plugins.offers("reward"), plugins.offers("generator"), seen) == ([], [], [])


def test_no_hook_of_a_plugin_for_a_newer_host_runs(plugins):
    ran = []
    plugin = a_plugin(
        risen_register_rewards=lambda register: ran.append(1), risen_from_tomorrow=lambda: None
    )
    plugins.register(plugin, "future")
    assert ran == []


def test_a_plugin_may_mark_a_newer_hook_as_optional(plugins):
    plugin = offering("echo")
    plugin.risen_from_tomorrow = hookimpl(optionalhook=True)(lambda: None)
    assert plugins.register(plugin, "careful")
    assert plugins.find("reward", "echo").plugin == "careful"


def test_two_plugins_cannot_have_one_name(plugins):
    plugins.register(offering("echo"), "mine", "dist-one", "1")
    assert not plugins.register(offering("other"), "mine", "dist-two", "2")
    assert plugins.infos()[1].left_out == "the plugin 'mine' (dist-one 1) has the same name"
    assert [offer.name for offer in plugins.offers("reward")] == ["echo"]


def test_one_object_is_one_plugin(plugins):
    plugin = offering("echo")
    assert plugins.register(plugin, "mine")
    assert not plugins.register(plugin, "again")
    assert the_reason(plugins, "again") == "it is the same object as the plugin 'mine'"
    assert plugins.find("reward", "echo").plugin == "mine"


def test_a_plugin_left_out_can_be_registered_again_once_mended(plugins):
    plugins.register(a_plugin(risen_register_rewards=raises_halfway), "mine")
    assert plugins.register(offering("echo"), "mine")
    assert plugins.find("reward", "echo").plugin == "mine"


def test_register_works_only_inside_its_hook(plugins):
    kept = []
    plugins.register(a_plugin(risen_register_rewards=lambda register: kept.append(register)), "x")
    with pytest.raises(RuntimeError, match="only for use inside the hook"):
        kept[0]("echo", Echo)
    assert plugins.offers("reward") == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, SystemExit(0), GeneratorExit])
def test_a_plugin_that_raises_to_end_the_program_is_left_out(plugins, stop):
    def hook(register):
        raise stop

    assert not plugins.register(a_plugin(risen_register_rewards=hook), "stopping")
    assert the_reason(plugins, "stopping").split(":")[0] in repr(stop)


def test_ctrl_c_while_a_plugin_registers_stops(plugins):
    def hook(register):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        plugins.register(a_plugin(risen_register_rewards=hook), "slow")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit(0)])
def test_an_onlooker_that_raises_to_end_the_program_is_muted(plugins, stop):
    def hook(phase):
        raise stop

    assert plugins.register(a_plugin(risen_phase_ended=hook), "stopping")
    [(title, how)] = plugins.observe("risen_phase_ended", phase=None, progress=None, metrics={})
    assert "stopping" in title
    assert how.startswith("failed in risen_phase_ended: ")


def test_an_error_whose_text_raises_is_named_by_its_class(plugins):
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

    def hook(register):
        raise MuteError

    assert not plugins.register(a_plugin(risen_register_rewards=hook), "mute")
    assert the_reason(plugins, "mute") == "MuteError, whose text raises RuntimeError"


@pytest.mark.parametrize(
    "name", ["a\x1b[31mb", "a\u202eb", "a\ud800b", "a\nb", "a\0b", "n" * 1000, 7]
)
def test_a_name_that_cannot_be_shown_is_refused_with_escapes(plugins, name):
    assert not plugins.register(offering(name), "odd")
    reason = the_reason(plugins, "odd")
    assert "cannot be the name of a reward" in reason
    assert reason.isprintable()
    assert len(reason) < 200


# Environment


@pytest.mark.parametrize("disabled", ["mine", "risen-mine", "other, mine"])
def test_plugins_named_in_the_environment_are_disabled(monkeypatch, caplog, disabled):
    monkeypatch.setenv("RISEN_DISABLED_PLUGINS", disabled)
    plugins = Plugins()
    assert not plugins.register(offering("echo"), "mine", "risen-mine", "1")
    assert the_reason(plugins, "mine") == "disabled"
    assert caplog.messages == []


def test_a_disabled_plugin_is_not_even_imported(monkeypatch, caplog):
    entry_points(monkeypatch, EntryPoint("noisy", fail_to_import))
    plugins = Plugins.load(disable=["noisy", "built-in-rewards"])
    assert the_reason(plugins, "noisy") == the_reason(plugins, "built-in-rewards") == "disabled"
    assert plugins.offers("reward") == []
    assert caplog.messages == []


def test_a_name_to_disable_that_nobody_has_is_warned_of_with_the_near_miss(monkeypatch, caplog):
    entry_points(monkeypatch, EntryPoint("noisy", a_plugin))
    Plugins.load(disable=["nosiy", "dist-noisy"])
    assert caplog.messages == [
        "no plugin 'nosiy' is installed that could be disabled; did you mean 'noisy'?"
    ]


def test_strict_makes_a_failure_an_error(monkeypatch):
    monkeypatch.setenv("RISEN_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError) as caught:
        Plugins().register(a_plugin(risen_register_rewards=raises_halfway), "bad", "dist", "1.2")
    assert str(caught.value) == "plugin 'bad' (dist 1.2) cannot be used: RuntimeError: no more"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_trace_prints_each_hook_call(monkeypatch, capsys):
    monkeypatch.setenv("RISEN_TRACE_PLUGINS", "1")
    plugins = Plugins()
    plugins.register(
        a_plugin(risen_register_rewards=lambda register: None, risen_phase_started=print_nothing),
        "mine",
    )
    plugins.observe("risen_phase_started", phase="now", progress=None)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("(")[0] for line in lines] == [
        "risen: risen_register_rewards",
        "risen: risen_phase_started",
    ]
    assert lines[1] == "risen: risen_phase_started(phase='now') -> mine"


def print_nothing(phase):
    pass


# Observing


def test_observers_are_told_by_the_arguments_they_name(plugins):
    seen = []
    plugins.register(a_plugin(risen_phase_ended=lambda metrics: seen.append(metrics)), "one")
    plugins.register(
        a_plugin(risen_phase_ended=lambda progress, phase: seen.append((phase, progress))), "two"
    )
    plugins.observe("risen_phase_ended", phase="p", progress="q", metrics={"m": 1})
    assert seen == [("p", "q"), {"m": 1}]  # the latest first, as pluggy calls


def test_a_failing_observer_is_logged_once_then_muted_for_that_hook(plugins, caplog):
    seen, told = [], []

    def fails(phase):
        seen.append("failing")
        raise ValueError("no")

    failing = a_plugin(risen_phase_started=fails, risen_phase_ended=lambda phase: seen.append("x"))
    plugins.register(failing, "bad", "dist", "1.2")
    plugins.register(a_plugin(risen_phase_started=lambda phase: seen.append("good")), "good")
    for _ in range(2):
        told += plugins.observe("risen_phase_started", phase=1, progress=2)
    told += plugins.observe("risen_phase_ended", phase=1, progress=2, metrics={})
    assert seen == ["good", "failing", "good", "x"]
    [record] = caplog.records
    assert record.getMessage() == (
        "plugin 'bad' (dist 1.2) failed in risen_phase_started, "
        "which is not called again in this run"
    )
    assert told == [("'bad' (dist 1.2)", "failed in risen_phase_started: ValueError: no")]
    assert record.exc_info is not None
    assert "ValueError: no" in logging.Formatter().formatException(record.exc_info)


# Commands


def adding(name):
    return a_plugin(risen_register_commands=lambda cli: cli.add_command(click.Command(name)))


def test_commands_join_the_group_that_is_given():
    cli = click.Group("risen")
    plugins = Plugins(cli=cli)
    plugins.register(adding("export"), "export")
    assert list(cli.commands) == ["export"]
    assert plugins.infos()[0].commands == ("export",)


def test_without_a_group_no_command_hook_runs(plugins):
    assert plugins.register(a_plugin(risen_register_commands=lambda cli: 1 / 0), "export")


def test_the_commands_of_a_plugin_left_out_are_rolled_back():
    def adds_and_fails(cli):
        cli.add_command(click.Command("half"))
        raise ValueError("no")

    cli = click.Group("risen", commands=[click.Command("train")])
    Plugins(cli=cli).register(a_plugin(risen_register_commands=adds_and_fails), "bad")
    assert list(cli.commands) == ["train"]


def test_a_plugin_that_replaces_a_command_is_left_out():
    train = click.Command("train")
    cli = click.Group("risen", commands=[train])
    plugins = Plugins(cli=cli)
    assert not plugins.register(adding("train"), "bad")
    assert the_reason(plugins, "bad") == "it replaces the command 'train', which exists already"
    assert cli.commands == {"train": train}


# Loading


class EntryPoint:
    """What importlib.metadata has for an installed plugin."""

    def __init__(self, name, load, version="1.0"):
        self.name = name
        self.load = load
        self.dist = types.SimpleNamespace(name=f"dist-{name}", version=version)


def entry_points(monkeypatch, *entries, commands=()):
    """Have these installed in place of what is: plugins, and some that only bring commands."""
    installed = {"risen_plugin": entries, "risen_plugin.commands": commands}
    monkeypatch.setattr(metadata, "entry_points", lambda group: list(installed.get(group, ())))


def fail_to_import():
    raise ImportError("No module named 'missing'")


def test_the_built_ins_are_plugins_like_any_other(monkeypatch):
    entry_points(monkeypatch)
    plugins = Plugins.load(cli=click.Group())
    assert len(plugins.infos()) == len(OFFERS) + len(COMMANDS)
    for info in plugins.infos():
        assert info.left_out is None
        assert (info.distribution, info.version) == ("risen-plugin", __version__)
    assert {offer.name for offer in plugins.offers("reward")} >= {"exact", "regex", "length"}


def test_installed_plugins_come_with_their_distribution(monkeypatch):
    entries = [
        EntryPoint("good", lambda: offering("echo")),
        EntryPoint("broken", fail_to_import, "2.0"),
    ]
    entry_points(monkeypatch, *entries)
    monkeypatch.setattr(registry, "OFFERS", ())
    plugins = Plugins.load()
    assert plugins.find("reward", "echo").label == "reward 'echo' (dist-good 1.0)"
    assert the_reason(plugins, "broken") == "ImportError: No module named 'missing'"


def test_what_only_brings_commands_is_imported_for_a_command_line_alone(monkeypatch):
    def brings(name):
        command = click.Command(name)
        return a_plugin(risen_register_commands=lambda cli: cli.add_command(command))

    loaded = []
    command = EntryPoint("tool", lambda: loaded.append("tool") or brings("tool"))
    both = a_plugin(
        risen_register_rewards=lambda register: register("echo", Echo),
        risen_register_commands=lambda cli: cli.add_command(click.Command("other")),
    )
    entry_points(monkeypatch, EntryPoint("both", lambda: both), commands=[command])
    plugins = Plugins.load()
    assert (loaded, plugins.find("reward", "echo").plugin) == ([], "both")
    assert [info.name for info in plugins.infos()] == [
        "built-in-rewards",
        "built-in-generators",
        "built-in-schedulers",
        "both",
    ]
    cli = click.Group()
    infos = {info.name: info for info in Plugins.load(cli=cli).infos()}
    assert loaded == ["tool"]
    assert infos["tool"].commands == ("tool",)
    assert infos["both"].commands == ("other",)
    assert {"tool", "other", "score", "train"} <= set(cli.commands)


@pytest.mark.parametrize("name", ["tool", "dist-tool", "built-in-score", "risen-plugin"])
def test_what_only_brings_commands_can_be_disabled_by_name_whether_imported_or_not(
    monkeypatch, caplog, name
):
    entry_points(monkeypatch, commands=[EntryPoint("tool", fail_to_import)])
    monkeypatch.setenv("RISEN_DISABLED_PLUGINS", f"{name},tool")
    Plugins.load()
    disabled = {i.name for i in Plugins.load(cli=click.Group()).infos() if i.is_disabled}
    assert "tool" in disabled
    assert caplog.messages == []


def test_what_does_more_than_commands_is_refused_in_their_group(monkeypatch):
    entry_points(monkeypatch, commands=[EntryPoint("tool", lambda: offering("echo"))])
    plugins = Plugins.load(cli=click.Group())
    assert the_reason(plugins, "tool") == (
        "it implements the hook 'risen_register_rewards', and its entry point is in the group "
        "risen_plugin.commands, which is read for the command line alone; risen_plugin is the "
        "group of a plugin that does more"
    )


def test_the_host_marks_its_hooks_with_the_public_markers():
    assert hookimpl.project_name == hookspec.project_name == "risen_plugin"
