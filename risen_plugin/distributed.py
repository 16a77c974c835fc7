"""The processes that ``torchrun`` and ``accelerate launch`` start side by side."""

from __future__ import annotations

import torch.distributed as dist

from risen_plugin.processes import ALONE, Processes


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
