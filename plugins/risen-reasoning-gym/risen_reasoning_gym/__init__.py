"""The tasks of reasoning-gym as instructions, and their own scorers as a reward.

Importing it is quick: reasoning-gym itself is loaded when a task is first used.
"""

from __future__ import annotations

from risen_plugin import hookimpl
from risen_plugin.hookspecs import Register
from risen_reasoning_gym.generator import Tasks
from risen_reasoning_gym.reward import TaskScore

__all__ = ["TaskScore", "Tasks"]


@hookimpl
def risen_register_generators(register: Register) -> None:
    """Offer the tasks."""
    register("reasoning-gym", Tasks)


@hookimpl
def risen_register_rewards(register: Register) -> None:
    """Offer the scorers."""
    register("reasoning-gym", TaskScore)
