"""Random weights of 4 and 6 bits with integer scales."""

from __future__ import annotations

from typing import Any

import torch


def draw(N: int, K: int, bits: int, activation_group: int) -> dict[str, Any]:
    """What `pack_int` takes: random codes, scales and factors."""
    codes = torch.randint(0, 16, (N, K), dtype=torch.uint8)
    if bits == 6:
        codes = torch.randint(-31, 32, (N, K), dtype=torch.int8)
    scales = torch.randint(-127, 128, (N, -(-K // 32)), dtype=torch.int8)
    factors = torch.rand(N, -(-K // activation_group)).bfloat16()
    return {
        "codes": codes,
        "scales": scales,
        "factors": factors,
        "bits": bits,
        "activation_group": activation_group,
    }
