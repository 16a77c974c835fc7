"""An answer of a model that misses a constraint, edited until it meets it."""

from risen_plugin.constraints.mending.mended import mended

__all__ = ["mended"]
