"""Root-mean-square normalisation (arXiv:1910.07467)."""

from __future__ import annotations

import torch

from ramify.kernels.norm import rms_norm


class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension.

    Args:
        weight: [size], in the dtype of the activations.
        eps: added to the mean square.
    """

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape whose last dimension is the weight's."""
        return rms_norm(x, self.weight, self.eps)[0]

    def add(self, x: torch.Tensor, residual: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of `x` + `residual`, and the sum itself; of `x` if there is no residual."""
        return rms_norm(x, self.weight, self.eps, residual)
