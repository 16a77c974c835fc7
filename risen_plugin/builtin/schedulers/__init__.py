"""The schedulers that come with risen-plugin, offered by name.

Each is in a module beside this one, imported when it is first made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from risen_plugin.hookspecs import Register, hookimpl
from risen_plugin.plugins.offers import Later

if TYPE_CHECKING:
    from risen_plugin.builtin.schedulers.benefit import Benefit
    from risen_plugin.builtin.schedulers.budget import Budget
    from risen_plugin.builtin.schedulers.fixed import After, Alternate
    from risen_plugin.builtin.schedulers.plateau import Plateau

__all__ = ["After", "Alternate", "Benefit", "Budget", "Plateau"]

_OFFERED = {
    "after": Later(f"{__name__}.fixed:After"),
    "alternate": Later(f"{__name__}.fixed:Alternate"),
    "plateau": Later(f"{__name__}.plateau:Plateau"),
    "benefit": Later(f"{__name__}.benefit:Benefit"),
    "budget": Later(f"{__name__}.budget:Budget"),
}


@hookimpl
def risen_register_schedulers(register: Register) -> None:
    """Offer the schedulers of this package."""
    for name, factory in _OFFERED.items():
        register(name, factory)


def __getattr__(name: str) -> Any:
    for later in _OFFERED.values():
        if later.place.endswith(f":{name}"):
            return later.load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
