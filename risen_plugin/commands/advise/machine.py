"""The memory of this machine and process, and the age of the process."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from risen_plugin.training.protocols import Model

_START_S = 5.0  # an interpreter is not older than that when its command begins
_CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that a run may take: a GPU's free memory, else main memory within its limits."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0]) + int(torch.cuda.memory_allocated())
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = [int(line.split()[1]) * 1024]
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and used.is_file():
        text = limit.read_text(encoding="ascii").strip()
        if text.isdigit():
            free.append(int(text) - int(used.read_text(encoding="ascii")))
    return max(0, min(free)) + held_memory()


def held_memory() -> int:
    """Bytes that the process holds now, on the device that computes."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    statm = Path("/proc/self/statm")
    if statm.is_file():
        pages = int(statm.read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return peak_memory()


def loaded_memory(model: Model) -> int:
    """Bytes that the process holds once ``model``, loaded, is where it is trained."""
    import torch

    held = held_memory()
    if torch.cuda.is_available() and model.device.type == "cpu":
        held += sum(p.numel() * p.element_size() for p in model.parameters())
    return held


def trainer_memory() -> int:
    """Bytes of main memory that a Trainer with its libraries takes beside model and batch.

    80 MB with transformers 5.23 and TRL 1.16 on a CPU.
    """
    import torch

    return 0 if torch.cuda.is_available() else 100_000_000


def phase_memory() -> int:
    """Bytes of main memory that a phase takes beside the Trainer, for sampling, scoring and logs.

    70 to 100 MB with TRL 1.16 and a model of a million weights on a CPU.
    """
    import torch

    return 0 if torch.cuda.is_available() else 100_000_000


def peak_memory() -> int:
    """Bytes that the process held at the most."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processes_started() -> int:
    """The number of processes that a launcher has started; known before torch is loaded."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def command_began() -> float:
    """When the process of this command began, on the clock of :func:`time.perf_counter`.

    Call it before anything heavy is loaded: an older process is taken to run other things too.
    """
    return time.perf_counter() - min(process_age_s(), _START_S)


def process_age_s() -> float:
    """Seconds since the process began; 0 where the system does not say."""
    stat = Path("/proc/self/stat")
    if not stat.is_file():
        return 0.0
    begun = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - begun / os.sysconf("SC_CLK_TCK")
