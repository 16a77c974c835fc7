"""Choose the exporter that builds a model, and say why.

Choosing is pure: configurations and refusals in, a name with a reason out. No exporter builds
anything here, and none of somebody else's is chosen unless it is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_export.backends import offers
from risen_export.bundles.manifest import DATA, GRAPH
from risen_plugin import __version__
from risen_plugin.config.choices import Use
from risen_plugin.contracts import Exporter
from risen_plugin.errors import ExportError, PluginError, typed_line
from risen_plugin.kit.foreign import contained
from risen_plugin.plugins import Plugins
from risen_plugin.plugins.lookup import look_up
from risen_plugin.plugins.offers import Built

Wanted = tuple[str, str]
"""(target, precision) of a graph."""


@dataclass(frozen=True)
class Backend:
    """The exporter that builds a bundle.

    :param name: as it is offered, or the place of its code.
    :param origin: the distribution that it comes from, with its version.
    :param reason: why it was chosen, in one line.
    """

    name: str
    origin: str
    reason: str
    label: str
    exporter: Exporter

    @property
    def line(self) -> str:
        """What a person is told of the choice."""
        return f"backend {self.name}: {self.reason}"

    def refuses(self, config: Mapping[str, Any], target: str, precision: str) -> str | None:
        """Why it cannot build such a graph, in one line; None if it can.

        :raises PluginError: if the exporter breaks its contract.
        """
        with contained(lambda error: PluginError(f"{self.label} failed: {typed_line(error)}")):
            reason: Any = self.exporter.refuses(dict(config), target, precision)
        if reason is not None and not isinstance(reason, str):
            raise PluginError(
                f"{self.label} refuses with {reason!r:.60}; it returns a line or None"
            )
        return None if reason is None else " ".join(reason.split())

    def build(
        self,
        model: Path,
        out: Path,
        target: str,
        precision: str,
        *,
        scratch: Path,
        show_log: bool = False,
    ) -> None:
        """Have the graph of the merged model in ``model`` written to ``out``.

        :param scratch: a folder on the same disk, which may be there already.
        :raises ExportError: if the exporter fails or writes no graph.
        """
        out.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)

        def said(error: BaseException) -> Exception:
            if isinstance(error, OSError):
                return error  # a full disk, which the caller has words for
            return ExportError(
                f"{self.label} could not compile the model to {precision}: {typed_line(error)}"
            )

        with contained(said):
            self.exporter(
                model=str(model),
                out=str(out),
                target=target,
                precision=precision,
                scratch=str(scratch),
                show_log=show_log,
            )
        missing = [name for name in (GRAPH, DATA) if not (out / name).is_file()]
        if missing:
            raise ExportError(f"{self.label} wrote no {' and no '.join(missing)}")


def choose(
    config: Mapping[str, Any],
    wanted: Iterable[Wanted],
    backend: str | Use | Exporter | None = None,
    plugins: Plugins | None = None,
    *,
    named_for: str = "asked for with --backend",
) -> Backend:
    """The exporter that builds every graph that is wanted of a model.

    :param config: the contents of the model's ``config.json``.
    :param backend: a name that ``risen exporters`` lists, the place of code, ``use(...)`` or an
        object; None takes the first of those that come along which refuses nothing.
    :param plugins: the installed ones if None.
    :param named_for: the reason for a named one.
    :raises ExportError: if the named one refuses, or every one does, each with its reason.
    :raises ConfigError: if nobody offers the name, or its options are wrong.
    """
    plugins = with_built_in(Plugins.load() if plugins is None else plugins)
    graphs = list(wanted)
    if backend is not None:
        named = _backend(look_up(plugins, "exporter", backend), named_for)
        reason = refusal(named, config, graphs)
        if reason is not None:
            raise ExportError(f"{named.label} cannot build this model: {reason}")
        return named
    refusals: dict[str, str] = {}
    for name in offers.OFFERED:
        candidate = _backend(look_up(plugins, "exporter", f"{offers.PLUGIN}/{name}"), "")
        reason = refusal(candidate, config, graphs)
        if reason is None:
            return _backend(candidate, why(name, refusals))
        refusals[name] = reason
    raise ExportError(nobody(config, refusals))


def refusal(backend: Backend, config: Mapping[str, Any], graphs: Sequence[Wanted]) -> str | None:
    """The first reason for which an exporter cannot build one of the graphs; None if it can all."""
    reasons = (backend.refuses(config, target, precision) for target, precision in graphs)
    return next((reason for reason in reasons if reason is not None), None)


def why(name: str, refusals: Mapping[str, str]) -> str:
    """Why an exporter was chosen by itself.

    >>> why("transformers", {"genai": "it does not know GPT2LMHeadModel"})
    'the first that can build this model; not genai, since it does not know GPT2LMHeadModel'

    :param refusals: the reasons of those before it, by name.
    """
    if not refusals:
        return "the default"
    others = "; ".join(f"not {other}, since {reason}" for other, reason in refusals.items())
    return f"the first that can build this model; {others}"


def nobody(config: Mapping[str, Any], refusals: Mapping[str, str]) -> str:
    """What a person is told where no exporter can build the model."""
    named = config.get("architectures")
    what = named[0] if isinstance(named, list) and named else config.get("model_type")
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
    return f"no exporter can build this model ({what}). {reasons}"


def with_built_in(plugins: Plugins) -> Plugins:
    """``plugins`` with the exporters of this package, its entry point installed or not."""
    known = {info.name for info in plugins.infos()}
    if offers.PLUGIN not in known:
        plugins.register(offers, offers.PLUGIN, "risen-plugin", __version__)
    return plugins


def _backend(built: Built | Backend, reason: str) -> Backend:
    exporter = built.exporter if isinstance(built, Backend) else built.value
    return Backend(built.name, built.origin, reason, built.label, exporter)
