"""The exporters that come along, offered by the same hook as those of anybody else.

Imported wherever plugins are loaded, so it is light: an exporter is loaded when it is needed.
"""

from __future__ import annotations

from risen_plugin.hookspecs import Register, hookimpl
from risen_plugin.plugins.offers import Later

PLUGIN = "exporters"
"""The name of this plugin: that of its entry point."""
_HERE = "risen_export.backends"
OFFERED = {
    "genai": Later(f"{_HERE}.builder:ModelBuilder"),
    "transformers": Later(f"{_HERE}.traced:TransformersExporter"),
    "optimum": Later(f"{_HERE}.optimum_export:OptimumExporter"),
}
"""In the order in which they are chosen where nobody names one."""


@hookimpl
def risen_register_exporters(register: Register) -> None:
    """Offer the exporters of this package."""
    for name, factory in OFFERED.items():
        register(name, factory)
