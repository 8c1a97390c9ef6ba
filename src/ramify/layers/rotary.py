"""Rotary positions (arXiv:2104.09864): a table of cosines and sines."""

from __future__ import annotations

import torch


class RotaryTable:
    """Cosines and sines of all positions, float32.

    Args:
        inverse_frequencies: [head_dim / 2] radians a position.
        attention_scaling: factor on both (yarn's temperature).
        length: positions 0 to length - 1.
        device: where the table lives.
    """

    def __init__(
        self, inverse_frequencies: torch.Tensor, attention_scaling: float, length: int, device: torch.device
    ) -> None:
        angles = torch.arange(length, dtype=torch.float32)[:, None] * inverse_frequencies[None, :]
        self.cosines = (angles.cos() * attention_scaling).to(device)
        self.sines = (angles.sin() * attention_scaling).to(device)

    def at(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of `positions` [T], each [T, head_dim / 2] in `dtype`: made once a step."""
        cosines = self.cosines.index_select(0, positions).to(dtype)
        return cosines, self.sines.index_select(0, positions).to(dtype)
