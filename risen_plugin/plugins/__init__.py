"""Who offers what, and how a name becomes an object."""

from __future__ import annotations

from risen_plugin.plugins.offers import KINDS, Built, Kind, Offer, PluginInfo
from risen_plugin.plugins.registry import DEFAULTS, Plugins

__all__ = ["DEFAULTS", "KINDS", "Built", "Kind", "Offer", "PluginInfo", "Plugins"]
