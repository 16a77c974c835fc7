"""Every hook of risen-plugin. Hooks offer things by name; a configuration then uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import click
import pluggy

from risen_plugin.contracts import PhaseRecord, Progress

PROJECT = "risen_plugin"
"""The group of entry points of plugins."""
COMMAND_GROUP = "risen_plugin.commands"
"""The group of entry points of plugins that only bring commands; imported for ``risen`` alone."""
ROLLOUT_GROUP = "risen_plugin.rollouts"
"""The group of entry points of plugins that only bring rollouts; imported for ``risen``, and where
a configuration names one."""
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """Offers ``factory`` (a class or function whose parameters are the options) as ``name``."""

    def __call__(self, name: str, factory: Callable[..., Any]) -> None: ...


@hookspec(historic=True)
def risen_register_rewards(register: Register) -> None:
    """Offer reward providers.

    Called once, when the plugin is registered. An exception leaves the whole plugin out, with one
    line that names it::

        @hookimpl
        def risen_register_rewards(register):
            register("length-band", LengthBand)

    :param register: ``register(name, factory)``.

    .. versionadded:: 0.1
    """


@hookspec(historic=True)
def risen_register_generators(register: Register) -> None:
    """Offer instruction generators.

    Called once, when the plugin is registered. An exception leaves the whole plugin out::

        @hookimpl
        def risen_register_generators(register):
            register("riddles", Riddles)

    :param register: ``register(name, factory)``.

    .. versionadded:: 0.1
    """


@hookspec(historic=True)
def risen_register_schedulers(register: Register) -> None:
    """Offer schedulers.

    Called once, when the plugin is registered. An exception leaves the whole plugin out::

        @hookimpl
        def risen_register_schedulers(register):
            register("weekends", Weekends)

    :param register: ``register(name, factory)``.

    .. versionadded:: 0.1
    """


@hookspec(historic=True)
def risen_register_exporters(register: Register) -> None:
    """Offer exporters, which ``risen export --backend`` names.

    Called once, when the plugin is registered. An exception leaves the whole plugin out. Import
    heavy libraries inside the exporter, so that a training script does not load them::

        @hookimpl
        def risen_register_exporters(register):
            register("tiny", Tiny)

    :param register: ``register(name, factory)``.

    .. versionadded:: 0.1
    """


@hookspec(historic=True)
def risen_register_rollouts(register: Register) -> None:
    """Offer ways to sample the answers of a phase, which ``rollout`` in a configuration names.

    Called once, when the plugin is registered. An exception leaves the whole plugin out. Import
    heavy libraries where answers are sampled, so that a training script without them is quick::

        @hookimpl
        def risen_register_rollouts(register):
            register("elsewhere", Elsewhere)

    :param register: ``register(name, factory)``.

    .. versionadded:: 0.1
    """


@hookspec(historic=True)
def risen_register_commands(cli: click.Group) -> None:
    """Add subcommands to ``risen``.

    Called once per command-line process. A plugin that does nothing else has its entry point in the
    group ``risen_plugin.commands``, and is not imported where a callback is made. An exception
    leaves the whole plugin out. Import heavy libraries inside the command, so that ``risen --help``
    stays quick::

        @hookimpl
        def risen_register_commands(cli):
            cli.add_command(my_command)

    :param cli: the ``risen`` click group.

    .. versionadded:: 0.1
    """


@hookspec
def risen_phase_started(phase: PhaseRecord, progress: Progress) -> None:
    """Observe the start of a phase.

    Called once per phase, fine-tuning phases included, on the main process. The return value is
    ignored. An exception is logged once with its traceback; the hook of that plugin is then
    muted. Wrappers are not supported::

        @hookimpl
        def risen_phase_started(phase):
            print("now", phase.kind)

    :param phase: the phase as it begins; its ``steps`` are those planned.
    :param progress: the run at this moment.

    .. versionadded:: 0.1
    """


@hookspec
def risen_phase_ended(phase: PhaseRecord, progress: Progress, metrics: Mapping[str, Any]) -> None:
    """Observe the end of a phase.

    Called once per phase, fine-tuning phases included, on the main process. The return value is
    ignored. An exception is logged once with its traceback; the hook of that plugin is then
    muted. Wrappers are not supported::

        @hookimpl
        def risen_phase_ended(phase, metrics):
            print(phase.kind, metrics)

    :param phase: the phase as it went, with the guard's verdict in ``accepted``.
    :param progress: the run at this moment.
    :param metrics: the measurements of the phase, by name.

    .. versionadded:: 0.1
    """
