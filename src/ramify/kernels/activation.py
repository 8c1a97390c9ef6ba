"""The activation of the gated MLP (SwiGLU, arXiv:2002.05202)."""

from __future__ import annotations

import torch

from ramify.kernels.native import extension, native
from ramify.kernels.tensors import address


def silu_and_multiply(x: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up.

    Args:
        x: [rows, 2 * size], gate and up side by side; float32 on the CPU.

    Returns:
        [rows, size] like `x`.
    """
    if extension() is None or x.is_cuda:
        return reference_silu_and_multiply(x)
    rows, size = len(x), x.shape[1] // 2
    out = torch.empty(rows, size)
    native().silu_and_multiply(address(x), rows, size, out.data_ptr())
    return out


def reference_silu_and_multiply(x: torch.Tensor) -> torch.Tensor:
    """The same in torch."""
    # The halves stay strided views: silu then runs row by row, so which elements its vectorised loop leaves over
    # depends on the width alone and not on how many rows share the batch.
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up
