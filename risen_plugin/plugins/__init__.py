"""The plugins, their offers, and the one way from a name to an object."""

from __future__ import annotations

from risen_plugin.plugins.offers import KINDS, Built, Kind, Offer, PluginInfo
from risen_plugin.plugins.registry import Plugins

__all__ = ["KINDS", "Built", "Kind", "Offer", "PluginInfo", "Plugins"]
