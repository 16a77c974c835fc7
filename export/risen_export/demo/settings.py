"""The sizes of the demo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Sizes of the demo.

    :param rows: recorded conversations to fine-tune on.
    :param fine_tune_steps: optimizer steps of fine-tuning, ``batch_size`` rows each.
    :param peak: the peak learning rate of fine-tuning.
    :param risen_steps: GRPO steps of the RISEN phase that follows, ``risen_batch`` answers each.
    :param group: answers to one instruction.
    :param risen_rate: the learning rate of the RISEN phase.
    :param answer_tokens: most tokens of an answer.
    :param reported: held-out instructions, and as many held-out domain rows, that are reported.
    :param guarded: held-out instructions, and as many probe rows, that the guard decides by.
    """

    rows: int = 8000
    fine_tune_steps: int = 200
    batch_size: int = 32
    peak: float = 1e-3
    risen_steps: int = 40
    risen_batch: int = 64
    group: int = 8
    risen_rate: float = 1e-3
    answer_tokens: int = 64
    reported: int = 500
    guarded: int = 128
    measured_at_once: int = 128


FULL = Settings()
QUICK = Settings(rows=2000, fine_tune_steps=40, risen_steps=4, reported=60, guarded=32)
"""Shows every stage within 90 seconds; too little training to show a result."""
