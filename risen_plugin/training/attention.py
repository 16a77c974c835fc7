"""Attention with gradients that stay finite where a prompt is padded on the left.

Prompts of different lengths are padded on the left, and a padded position then attends to nothing.
In half precision PyTorch takes cuDNN's attention on recent GPUs, and since PyTorch 2.11 that one's
backward pass answers NaN for such a position wherever the length is 64 beyond a multiple of 128
(pytorch/pytorch#196678; met with DPO in huggingface/trl#7181). One GRPO batch of that length is
enough: the next step samples from a model of NaNs. PyTorch's other kernels give zeros there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def finite_attention() -> Iterator[None]:
    """Leave cuDNN's attention out while inside; PyTorch takes the next best of its kernels."""
    was_on = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was_on)
