"""The gated MLP (SwiGLU, arXiv:2002.05202)."""

from __future__ import annotations

import torch

from ramify.kernels.activation import silu_and_multiply
from ramify.layers.linear import Projection


class GatedMLP:
    """down(silu(gate(x)) * up(x)), with gate and up in one product."""

    def __init__(self, gate_up: Projection, down: Projection) -> None:
        self.gate_up = gate_up
        self.down = down

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] -> [rows, hidden]."""
        return self.down(silu_and_multiply(self.gate_up(x)))
