"""A language model as judge, one criterion at a time, over any OpenAI-compatible endpoint.

Requests go through risen-plugin's own client, ``risen_plugin.kit.chat_client``.
"""

from __future__ import annotations

from risen_judge.reward import Judge
from risen_plugin import hookimpl
from risen_plugin.hookspecs import Register

__all__ = ["Judge"]


@hookimpl
def risen_register_rewards(register: Register) -> None:
    """Offer the judge."""
    register("judge", Judge)
