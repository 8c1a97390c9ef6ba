"""What the native operators are given of a tensor: its address, once it is what they read."""

from __future__ import annotations

import torch


def address(tensor: torch.Tensor | None, dtype: torch.dtype = torch.float32) -> int:
    """The address of a contiguous tensor of `dtype` on the CPU; 0 for one that is left out.

    Raises:
        TypeError: it is something else.
    """
    if tensor is None:
        return 0
    if tensor.dtype != dtype or not tensor.is_contiguous() or tensor.is_cuda:
        raise TypeError(f"a contiguous {dtype} tensor on the CPU is needed, not {tensor.dtype} on {tensor.device}")
    return tensor.data_ptr()
