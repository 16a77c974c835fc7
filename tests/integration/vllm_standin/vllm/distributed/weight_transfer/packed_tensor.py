"""The sending side of an update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .nccl_common import WIRE


def packed_nccl_broadcast_producer(
    iterator: Iterator[Any], group: Any, src: int, post_iter_func: Callable[[Any], Any]
) -> None:
    assert group.group.socket is not None, "the group was closed"
    for item in iterator:
        WIRE.put(post_iter_func(item).detach().clone())
