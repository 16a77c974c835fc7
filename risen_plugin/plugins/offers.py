"""The offers of plugins with their origin: plain data."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

Kind: TypeAlias = Literal["reward", "generator", "scheduler", "exporter", "rollout"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BUILT_IN = "built-in-"


@dataclass(frozen=True)
class Later:
    """A factory that is imported when it is first needed, and not to list the offers.

    >>> Later("fractions:Fraction").load()(1, 2)
    Fraction(1, 2)

    :param place: ``module:NAME``.
    """

    place: str

    def load(self) -> Callable[..., Any]:
        """The factory."""
        module, _, name = self.place.partition(":")
        factory: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return factory

    def __call__(self, **options: Any) -> Any:
        return self.load()(**options)


class Ready:
    """A factory without options of an object that is there already, and has its docstring."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.__doc__ = inspect.getdoc(value)

    def __call__(self) -> Any:
        return self.value


@dataclass(frozen=True)
class Offer:
    """A named factory and whose it is.

    :param registered: the factory, or the place where it is.
    :param plugin: the plugin's name: its entry point, or the name it was registered under.
    :param distribution: the installed distribution it comes with; empty if it was never installed.
    """

    kind: Kind
    name: str
    registered: Callable[..., Any]
    plugin: str
    distribution: str = ""
    version: str = ""

    @property
    def factory(self) -> Callable[..., Any]:
        """The class or function whose parameters are the options."""
        return self.registered.load() if isinstance(self.registered, Later) else self.registered

    @property
    def label(self) -> str:
        """As messages name it: ``reward 'length-band' (risen-length 0.1)``."""
        return f"{self.kind} '{self.name}' ({self.origin})"

    @property
    def origin(self) -> str:
        """The distribution and its version, or the plugin's name if it was never installed."""
        return f"{self.distribution} {self.version}".strip() or self.plugin

    @property
    def full_name(self) -> str:
        """``plugin/name``, which stays unique when two plugins offer the same name."""
        return f"{self.plugin}/{self.name}"


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that was found.

    :param name: its entry point, or the name it was registered under.
    :param distribution: the installed distribution it comes with; empty if it was never installed.
    :param offers: its named factories.
    :param commands: the subcommands that it added to a command line.
    :param hooks: the hooks that it implements.
    :param left_out: why it was left out, in one line; None if it was not.
    :param is_disabled: whether it was left out because somebody asked for that.
    """

    name: str
    distribution: str = ""
    version: str = ""
    offers: tuple[Offer, ...] = ()
    commands: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    left_out: str | None = None
    is_disabled: bool = False

    @property
    def is_built_in(self) -> bool:
        """Whether it is a part of risen-plugin that needs no entry point."""
        return self.name.startswith(BUILT_IN)

    @property
    def title(self) -> str:
        """As messages name it: ``'length' (risen-length 0.1)``."""
        origin = f"{self.distribution} {self.version}".strip()
        return f"'{self.name}'" + (f" ({origin})" if origin else "")


@dataclass(frozen=True)
class Built:
    """A plugin object with its name, the label that messages give it, and its origin."""

    value: Any
    name: str
    label: str
    origin: str = ""


class OfferFinder(Protocol):
    """Finds an offer by its name; the registry of plugins is one."""

    def find(self, kind: Kind, name: str) -> Offer: ...
