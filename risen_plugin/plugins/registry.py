"""Find plugins, list their offers with their origin, and leave out a misbehaving one as a whole.

A plugin only offers named factories; a configuration names the ones that a run uses. Turning
options into arguments is left to ``options``, calling the built objects to the run.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import click
import pluggy

from risen_plugin import __version__, hookspecs
from risen_plugin.errors import ConfigError, PluginError, near_miss, printable, typed_line
from risen_plugin.kit.foreign import interrupts_noted, noise_aside
from risen_plugin.plugins.lookup import make
from risen_plugin.plugins.offers import BUILT_IN, KINDS, Kind, Offer, PluginInfo

__all__ = ["COMMANDS", "KINDS", "OFFERS", "Kind", "Offer", "PluginInfo", "Plugins"]

OFFERS = (
    "risen_plugin.builtin.rewards",
    "risen_plugin.builtin.generators",
    "risen_plugin.builtin.schedulers",
)
"""Modules of risen-plugin that offer by name, registered as if they were somebody else's."""
_HOOKS_OF: Mapping[str, tuple[str, ...]] = {
    hookspecs.COMMAND_GROUP: ("risen_register_commands", "risen_register_exporters"),
    hookspecs.ROLLOUT_GROUP: ("risen_register_rollouts",),
}
"""Hooks of plugins that a plain training does not import, by their group of entry points."""
_READ_FOR: Mapping[str, str] = {
    hookspecs.COMMAND_GROUP: "the command line alone",
    hookspecs.ROLLOUT_GROUP: "the command line and configurations with a rollout alone",
}
COMMANDS = (
    "risen_plugin.commands.score.command",
    "risen_plugin.commands.audit.command",
    "risen_plugin.commands.simulate.command",
    "risen_plugin.commands.report.command",
    "risen_plugin.commands.join",
    "risen_plugin.commands.train.command",
    "risen_plugin.commands.unsolved",
    "risen_plugin.commands.new.command",
    "risen_plugin.commands.environment",
)
"""Modules of risen-plugin that only bring commands; imported for a command line alone."""

_LONGEST_NAME = 200  # characters
_log = logging.getLogger("risen_plugin")


class _UnfitError(Exception):
    """The plugin cannot be used; the message says why."""


class Plugins:
    """The plugins of one process or one test.

    :param disable: names of plugins, or of their distributions, to leave out; those of the
        environment variable ``RISEN_DISABLED_PLUGINS`` are left out too.
    :param cli: the click group that ``risen_register_commands`` is called with; without one that
        hook is not called.
    """

    def __init__(self, *, disable: Iterable[str] = (), cli: click.Group | None = None) -> None:
        self._disabled = {*disable, *_names(os.environ.get("RISEN_DISABLED_PLUGINS", ""))}
        self._strict = _is_set("RISEN_STRICT_PLUGINS")
        self._trace = _is_set("RISEN_TRACE_PLUGINS")
        self._infos: list[PluginInfo] = []
        self._muted: set[tuple[str, str]] = set()
        self._offering: tuple[PluginInfo, list[Offer]] | None = None
        self._cli = cli
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        if self._trace:
            self._manager.add_hookcall_monitoring(_print_call, lambda *_: None)
        hook = self._manager.hook
        for kind in KINDS:
            getattr(hook, f"risen_register_{kind}s").call_historic(
                kwargs={"register": self._register_for(kind)}
            )
        if cli is not None:
            hook.risen_register_commands.call_historic(kwargs={"cli": cli})

    @classmethod
    def load(
        cls,
        *,
        disable: Iterable[str] = (),
        cli: click.Group | None = None,
        rollouts: bool = False,
    ) -> Plugins:
        """The built-in plugins and every installed one.

        Those that only bring commands are imported only where there is a ``cli`` for them, and
        those that only bring rollouts there or where these are asked for.

        :param rollouts: whether a rollout will be looked for.
        :raises PluginError: if one cannot be used and ``RISEN_STRICT_PLUGINS=1``; otherwise it is
            left out with one warning.
        """
        disable = tuple(disable)
        plugins = cls(disable=disable, cli=cli)
        installed = [*map(_built_in, OFFERS), *map(_built_in, COMMANDS)]
        for group in (hookspecs.PROJECT, *_HOOKS_OF):
            installed += [_by_entry_point(entry, group) for entry in _entry_points(group)]
        wanted = {hookspecs.PROJECT} | ({hookspecs.ROLLOUT_GROUP} if rollouts else set())
        for one in sorted(installed, key=_ours_first):
            if cli is not None or one.group in wanted:
                plugins._admit(one.info, one.load, group=one.group)
        plugins._warn_of_unknown(
            {n for one in installed for n in (one.info.name, one.info.distribution)}
        )
        return plugins

    def _warn_of_unknown(self, known: set[str]) -> None:
        for name in sorted(self._disabled - known):
            hint = near_miss(name, known)
            _log.warning("no plugin '%s' is installed that could be disabled%s", name, hint)

    def register(
        self, plugin: object, name: str, distribution: str = "", version: str = ""
    ) -> bool:
        """Add a module, class or object with hooks; False if it had to be left out.

        :raises PluginError: if it had to be left out and ``RISEN_STRICT_PLUGINS=1``.
        """
        return self._admit(PluginInfo(name, distribution, version), lambda: plugin)

    def infos(self) -> list[PluginInfo]:
        """Every plugin that was found, in the order of registration, left out or not."""
        return list(self._infos)

    def offers(self, kind: Kind) -> list[Offer]:
        """All offers of one kind, in the order of registration."""
        return [offer for info in self._infos for offer in info.offers if offer.kind == kind]

    def find(self, kind: Kind, name: str) -> Offer:
        """The offer called ``name``, ``plugin/name`` or ``distribution/name``.

        :raises ConfigError: if nobody offers it, or more than one does.
        """
        offers = self.offers(kind)
        found = [
            offer
            for offer in offers
            if name in (offer.name, offer.full_name, f"{offer.distribution}/{offer.name}")
        ]
        if not found:
            raise ConfigError(self._nobody_offers(kind, name, offers))
        if len(found) > 1:
            whose = " and ".join(f"'{offer.full_name}' ({offer.origin})" for offer in found)
            raise ConfigError(f"{kind} '{name}' is offered more than once; write {whose}")
        return found[0]

    def build(self, kind: Kind, name: str, options: Mapping[str, Any]) -> Any:
        """Make the object that ``name`` offers, and first those that its options name.

        :raises ConfigError: if the name or an option is unknown, missing or refused.
        """
        offer = self.find(kind, name)
        return make(self, offer.factory, options, offer.label)

    def observe(self, hook_name: str, **kwargs: Any) -> list[tuple[str, str]]:
        """Call a hook of every plugin, one at a time, for an event.

        A failure is logged once with its traceback; that hook of that plugin is muted from then.

        :return: for each plugin that failed, its title and how.
        """
        failures: list[tuple[str, str]] = []
        for implementation in reversed(getattr(self._manager.hook, hook_name).get_hookimpls()):
            key = (implementation.plugin_name, hook_name)
            if key in self._muted:
                continue
            arguments = {name: kwargs[name] for name in implementation.argnames}
            if self._trace:
                _print_call(hook_name, [implementation], arguments)
            pressed: list[int] = []
            try:
                with interrupts_noted() as pressed:
                    implementation.function(**arguments)
            except BaseException as error:  # an onlooker may not hurt or end the run
                if pressed:
                    raise
                self._muted.add(key)
                title = next(i.title for i in self._infos if i.name == key[0] and not i.left_out)
                _log.warning(
                    "plugin %s failed in %s, which is not called again in this run",
                    title,
                    hook_name,
                    exc_info=True,
                )
                failures.append((title, f"failed in {hook_name}: {typed_line(error)}"))
        return failures

    # Registration

    def _admit(
        self, info: PluginInfo, load: Callable[[], Any], *, group: str = hookspecs.PROJECT
    ) -> bool:
        """Register the plugin that ``load`` returns, or record why it was left out."""
        if self._disabled & {info.name, info.distribution}:
            self._infos.append(replace(info, left_out="disabled", is_disabled=True))
            return False
        offers: list[Offer] = []
        commands = dict(self._cli.commands) if self._cli else {}
        pressed: list[int] = []
        try:
            with interrupts_noted() as pressed, noise_aside() if self._cli else nullcontext():
                plugin = load()
                self._refuse_unfit(plugin, info, group)
                self._offering = (info, offers)
                self._manager.register(plugin, info.name)
                self._manager.check_pending()
                self._refuse_commands(commands)
        except BaseException as error:  # one bad plugin may not break or end the tool
            if pressed:
                raise
            self._withdraw(info, commands)
            reason = str(error) if isinstance(error, _UnfitError) else typed_line(error)
            self._infos.append(replace(info, left_out=reason))
            if self._strict:
                raise PluginError(f"plugin {info.title} cannot be used: {reason}") from error
            _log.warning("plugin %s is left out: %s", info.title, reason)
            return False
        finally:
            self._offering = None
        added = (
            tuple(name for name in self._cli.commands if name not in commands) if self._cli else ()
        )
        hooks = tuple(sorted(hook.name for hook in self._manager.get_hookcallers(plugin) or ()))
        self._infos.append(replace(info, offers=tuple(offers), commands=added, hooks=hooks))
        return True

    def _register_for(self, kind: Kind) -> hookspecs.Register:
        def register(name: str, factory: Callable[..., Any]) -> None:
            if self._offering is None:
                raise RuntimeError("register() is only for use inside the hook that it is given to")
            info, offers = self._offering
            if not _is_name(name) or "/" in name:
                raise ValueError(f"{name!r:.80} cannot be the name of a {kind}")
            if not callable(factory):
                raise TypeError(f"what it offers as {kind} {name!r} cannot be called")
            if any((offer.kind, offer.name) == (kind, name) for offer in offers):
                raise ValueError(f"it offers {kind} {name!r} twice")
            offers.append(Offer(kind, name, factory, info.name, info.distribution, info.version))

        return register

    def _refuse_unfit(self, plugin: object, info: PluginInfo, group: str) -> None:
        """Refuse a plugin that this host cannot serve, before any hook of it runs.

        pluggy would refuse it too, but sometimes after hooks ran, and in other words.
        """
        manager = self._manager
        for other in self._infos:
            if other.name == info.name and not other.left_out:
                raise _UnfitError(f"the plugin {other.title} has the same name")
        if manager.is_registered(plugin):
            raise _UnfitError(f"it is the same object as the plugin '{manager.get_name(plugin)}'")
        for attribute in dir(plugin):
            marks = manager.parse_hookimpl_opts(plugin, attribute)
            if marks is None:
                continue
            name = marks.get("specname") or attribute
            hook = getattr(manager.hook, name, None)
            if hook is None or hook.spec is None:
                if not marks.get("optionalhook"):
                    raise _UnfitError(
                        f"it implements the hook '{name}', which risen-plugin {__version__} does "
                        "not have; a newer risen-plugin is needed, or the name is misspelt"
                    )
                continue
            if name not in _HOOKS_OF.get(group, (name,)):
                raise _UnfitError(
                    f"it implements the hook '{name}', and its entry point is in the group "
                    f"{group}, which is read for {_READ_FOR[group]}; "
                    f"{hookspecs.PROJECT} is the group of a plugin that does more"
                )
            if marks.get("wrapper") or marks.get("hookwrapper"):
                raise _UnfitError(f"its '{name}' is a wrapper, which no hook here supports")
            implementation = pluggy.HookImpl(plugin, info.name, getattr(plugin, attribute), marks)
            for argument in implementation.argnames:
                if argument not in hook.spec.argnames:
                    passed = ", ".join(hook.spec.argnames)
                    raise _UnfitError(
                        f"its '{name}' asks for the argument '{argument}', which risen-plugin "
                        f"{__version__} does not pass; it passes {passed}"
                    )

    def _refuse_commands(self, before: Mapping[str, click.Command]) -> None:
        now: Mapping[Any, Any] = {} if self._cli is None else self._cli.commands
        for name, command in before.items():
            if now.get(name) is not command:
                raise _UnfitError(f"it replaces the command '{name}', which exists already")
        for name, command in now.items():
            if name in before:
                continue
            if not _is_name(name):
                raise _UnfitError(f"{name!r:.80} cannot be the name of a command")
            if not isinstance(command, click.Command):
                raise _UnfitError(f"its command '{name}' is no click command")
            command.get_short_help_str()  # as the list of commands shows it; what it raises counts

    def _withdraw(self, info: PluginInfo, commands: Mapping[str, click.Command]) -> None:
        if self._offering is None:  # it never came to registering
            return
        if self._manager.has_plugin(
            info.name
        ):  # pluggy drops a plugin that fails its validation by itself
            self._manager.unregister(name=info.name)
        if self._cli:
            self._cli.commands.clear()
            self._cli.commands.update(commands)

    def _nobody_offers(self, kind: Kind, name: str, offers: list[Offer]) -> str:
        names = sorted({offer.name for offer in offers})
        known = [*names, *(offer.full_name for offer in offers)]
        message = f"no {kind} is called '{name}'{near_miss(name, known) or '.'}"
        message += f" Offered: {', '.join(names) or 'none'}"
        left_out = [f"{info.title}: {info.left_out}" for info in self._infos if info.left_out]
        return message + (f". Left out: {'; '.join(left_out)}" if left_out else "")


@dataclass(frozen=True)
class _Installed:
    """A plugin that may be imported.

    :param group: of its entry point, which says what it is imported for.
    """

    info: PluginInfo
    load: Callable[[], Any]
    group: str


def _built_in(module: str) -> _Installed:
    info = PluginInfo(BUILT_IN + module.split(".")[2], "risen-plugin", __version__)
    group = hookspecs.COMMAND_GROUP if module in COMMANDS else hookspecs.PROJECT
    return _Installed(info, functools.partial(importlib.import_module, module), group)


def _entry_points(group: str) -> Iterable[metadata.EntryPoint]:
    """The entry points of every distribution whose metadata can be read."""
    try:
        return metadata.entry_points(group=group)
    except Exception:  # noqa: BLE001  one broken file would cost every plugin
        return _readable_entry_points(group)


def _readable_entry_points(group: str) -> Iterator[metadata.EntryPoint]:
    for distribution in metadata.distributions():
        try:
            yield from distribution.entry_points.select(group=group)
        except Exception as error:  # noqa: BLE001  it is somebody else's file
            where = printable(str(distribution.locate_file("")))
            _log.warning(
                "a distribution in %s has no entry points that can be read: %s",
                where,
                typed_line(error),
            )


def _by_entry_point(entry: metadata.EntryPoint, group: str) -> _Installed:
    try:
        name, version = str(entry.dist.name or ""), str(entry.dist.version or "")  # type: ignore[union-attr]
    except Exception:  # noqa: BLE001  a distribution may lack metadata, and Pythons differ in it
        name, version = "", ""
    info = PluginInfo(printable(entry.name), printable(name), printable(version))
    return _Installed(info, entry.load, group)


def _is_name(name: object) -> bool:
    """Whether it is a text that can be shown and typed."""
    return (
        type(name) is str
        and 0 < len(name) <= _LONGEST_NAME
        and name == name.strip()
        and name.isprintable()
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def _ours_first(one: _Installed) -> tuple[bool, bool, str]:
    """By name, after those of risen-plugin itself: nobody takes one of its commands away."""
    info = one.info
    name = "" if info.is_built_in else info.name  # those stay in their order
    return (info.distribution != "risen-plugin", not info.is_built_in, name)


def _print_call(hook: str, implementations: Sequence[Any], arguments: Mapping[str, Any]) -> None:
    if not implementations:
        return
    names = ", ".join(implementation.plugin_name for implementation in implementations)
    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    print(f"risen: {hook}({shown}) -> {names}", file=sys.stderr)
