"""The processes that ``torchrun`` and ``accelerate launch`` start side by side."""

from __future__ import annotations

import gc

import torch.distributed as dist

from risen_plugin.kit.processes import ALONE, Processes


class TorchProcesses(Processes):
    """Exchanges through torch's default process group."""

    def __init__(self) -> None:
        super().__init__(dist.get_rank(), dist.get_world_size())

    def exchange(self, value: bytes) -> list[bytes]:
        received: list[bytes] = [b""] * self.count
        dist.all_gather_object(received, value)
        return received


def running_processes() -> Processes:
    """The processes of this run."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return TorchProcesses()
    return ALONE


def leave_processes() -> None:
    """Leave the group of processes, if there is one, and end its threads with it.

    For the end of a process: a thread of the backend that lets go of a tensor while Python ends
    may abort it (pytorch/pytorch#190489), and NCCL warns of a group that is left. The threads
    end with the last model that was trained in the group, which a garbage collection may have to
    find.
    """
    if dist.is_available() and dist.is_initialized():
        # The last to hold the group joins its threads, one of which may be waiting for the GIL to
        # let go of a tensor. The group's Python object releases the GIL for that, a model's C++
        # parts do not (pytorch/pytorch#56297): so it is held here until the models are gone.
        group = dist.group.WORLD
        dist.destroy_process_group()
        gc.collect()
        del group
