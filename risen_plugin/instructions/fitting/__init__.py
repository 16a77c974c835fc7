"""Which constraints fit a task in the eyes of a reader: no limit of 24 words on a top 10.

Pure functions of the words of a task. They decide what is added to a prompt; what somebody stated
is left as it is.
"""

from __future__ import annotations

from risen_plugin.instructions.fitting.amounts import amounts_suit
from risen_plugin.instructions.fitting.table import suitable
from risen_plugin.instructions.fitting.tasks import Kind, Task, task_of

__all__ = ["Kind", "Task", "amounts_suit", "suitable", "task_of"]
