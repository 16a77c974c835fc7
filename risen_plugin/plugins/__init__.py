"""Who offers what, and how a name becomes an object."""

from __future__ import annotations

from risen_plugin.plugins.offers import KINDS, Built, Kind, Later, Offer, PluginInfo
from risen_plugin.plugins.registry import COMMANDS, OFFERS, Plugins

__all__ = [
    "COMMANDS",
    "KINDS",
    "OFFERS",
    "Built",
    "Kind",
    "Later",
    "Offer",
    "PluginInfo",
    "Plugins",
]
