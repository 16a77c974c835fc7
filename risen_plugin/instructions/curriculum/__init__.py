"""Choose what to ask next: the instructions that the policy follows some of the time.

``pool`` decides, ``estimates`` and ``weights`` hold its numbers, ``store`` holds rows and answers
on disk, ``hindsight`` turns failed answers into easier instructions. None of it loads torch.
"""

from __future__ import annotations

from risen_plugin.instructions.curriculum.pool import Pool

__all__ = ["Pool"]
