"""Log every answer that a phase samples, and read such logs as a stream.

One Parquet file per phase, ``risen/phase-NNN/completions.parquet``, one row per answer. Comparing
them is left to others. pyarrow is loaded when a file is written or read.
"""

from risen_plugin.record.rollouts.reading import (
    DAMAGE,
    Rollout,
    logged_rewards,
    open_log,
    read_rollouts,
    rollout_files,
)
from risen_plugin.record.rollouts.writing import FILE, ROWS_AT_ONCE, RolloutLog, reason_of

__all__ = [
    "DAMAGE",
    "FILE",
    "ROWS_AT_ONCE",
    "Rollout",
    "RolloutLog",
    "logged_rewards",
    "open_log",
    "read_rollouts",
    "reason_of",
    "rollout_files",
]
