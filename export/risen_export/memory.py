"""Give memory that was freed back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back_memory() -> None:
    """Let the system have what was freed, where the C library keeps it (glibc).

    Once a block of many megabytes was freed, glibc takes new ones of that size from its heap, and
    the heap shrinks only from its end: of a model of 1.8 GB all stayed, and the next one came on
    top of it.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
