"""The gated MLP (SwiGLU, arXiv:2002.05202)."""

from __future__ import annotations

import torch
from torch.nn import functional

from ramify.layers.linear import Linear


class GatedMLP:
    """down(silu(gate(x)) * up(x)), with gate and up in one product."""

    def __init__(self, gate_up: Linear, down: Linear) -> None:
        self.gate_up = gate_up
        self.down = down

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] -> [rows, hidden]."""
        # The halves stay strided views: silu then runs row by row, so which elements its vectorised loop leaves
        # over depends on the width alone and not on how many rows share the batch.
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)
