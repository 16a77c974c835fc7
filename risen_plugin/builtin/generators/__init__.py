"""The generators that come with risen-plugin, offered by name.

Each is a module of its own beside this one, imported when it is first made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from risen_plugin.hookspecs import Register, hookimpl
from risen_plugin.plugins.offers import Later

if TYPE_CHECKING:
    from risen_plugin.builtin.generators.constrain import Constraints
    from risen_plugin.builtin.generators.evolve import Evolve
    from risen_plugin.builtin.generators.jsonl import Jsonl
    from risen_plugin.builtin.generators.rewrite import Rewrite

__all__ = ["Constraints", "Evolve", "Jsonl", "Rewrite"]

_OFFERED = {
    "jsonl": Later(f"{__name__}.jsonl:Jsonl"),
    "constraints": Later(f"{__name__}.constrain:Constraints"),
    "evolve": Later(f"{__name__}.evolve:Evolve"),
    "rewrite": Later(f"{__name__}.rewrite:Rewrite"),
}


@hookimpl
def risen_register_generators(register: Register) -> None:
    """Offer the generators of this package."""
    for name, factory in _OFFERED.items():
        register(name, factory)


def __getattr__(name: str) -> Any:
    for later in _OFFERED.values():
        if later.place.endswith(f":{name}"):
            return later.load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
