"""The generators that come with risen-plugin, offered by name.

Each is a module of its own beside this one.
"""

from __future__ import annotations

from risen_plugin.builtin.generators.constrain import Constraints
from risen_plugin.builtin.generators.evolve import Evolve
from risen_plugin.builtin.generators.jsonl import Jsonl
from risen_plugin.builtin.generators.rewrite import Rewrite
from risen_plugin.hookspecs import Register, hookimpl

__all__ = ["Constraints", "Evolve", "Jsonl", "Rewrite"]


@hookimpl
def risen_register_generators(register: Register) -> None:
    """Offer the generators of this package."""
    register("jsonl", Jsonl)
    register("constraints", Constraints)
    register("evolve", Evolve)
    register("rewrite", Rewrite)
