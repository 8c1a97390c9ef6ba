"""Root-mean-square normalisation (arXiv:1910.07467)."""

from __future__ import annotations

import torch
from torch.nn import functional


class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension; the mean is taken in float32."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape whose last dimension is the weight's."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
