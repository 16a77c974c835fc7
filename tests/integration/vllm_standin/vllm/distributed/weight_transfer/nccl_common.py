"""The group of trainer and server; rank 0 listens at a port, as torch's and vLLM's do."""

from __future__ import annotations

import queue
import socket
from types import SimpleNamespace
from typing import Any

WIRE: queue.Queue[Any] = queue.Queue()


def trainer_init(init_info: dict[str, Any]) -> SimpleNamespace:
    listening = socket.socket()
    listening.bind((init_info["master_address"], init_info["master_port"]))
    listening.listen()
    return SimpleNamespace(group=SimpleNamespace(store=object(), socket=listening))
