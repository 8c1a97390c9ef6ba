"""Activations as integers: each row, a group of inputs at a time, by the largest magnitude of the group."""

from __future__ import annotations

import torch

LARGEST_CODE = 127
SMALLEST_MAGNITUDE = 1e-30  # a group below it counts as zeros


def reference_quantise(x: torch.Tensor, group_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise rows.

    Args:
        x: [M, K] float32; K a multiple of `group_size`.
        group_size: inputs that share a scale.

    Returns:
        Codes [M, K] int8 in [-127, 127], halves rounded to even, and scales [M, G] float32. A group with a NaN or an
        infinity has the scale NaN and codes 0.
    """
    groups = x.view(x.shape[0], -1, group_size)
    largest = groups.abs().amax(dim=2)
    works = torch.isfinite(largest) & (largest >= SMALLEST_MAGNITUDE)
    # Divided by a tensor: torch turns a number over a tensor into a product with the reciprocal, which rounds twice.
    inverse = torch.where(works, torch.full_like(largest, LARGEST_CODE) / largest, 0.0)
    scales = torch.where(works, largest / LARGEST_CODE, torch.where(torch.isfinite(largest), 0.0, torch.nan))
    codes = torch.where(works.unsqueeze(2), groups * inverse.unsqueeze(2), 0.0)
    return codes.round().to(torch.int8).flatten(1), scales
