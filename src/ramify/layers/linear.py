"""Linear maps. A weight format is another class with this call."""

from __future__ import annotations

import torch
from torch.nn import functional


class Linear:
    """y = x W^T + b.

    Args:
        weight: [out, in].
        bias: [out] or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, in] -> [rows, out]."""
        return functional.linear(x, self.weight, self.bias)
