"""The resident memory of this process, now and at its peak."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_KB_PER_MB = 1024


def peak_mb() -> float:
    """The most that was resident since the process began, or since :func:`forget_peak`."""
    found = _status("VmHWM")
    if found is not None:
        return found
    unit = _KB_PER_MB if sys.platform != "darwin" else _KB_PER_MB**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def resident_mb() -> float:
    """What is resident now; the peak where the system does not tell."""
    found = _status("VmRSS")
    return peak_mb() if found is None else found


def forget_peak() -> None:
    """Begin a new peak. Only Linux can; elsewhere the peak stays that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _status(name: str) -> float | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / _KB_PER_MB
    return None
