"""From packed integers to codes, and to groups of a size that the kernels run; exact all along."""

from __future__ import annotations

from typing import Literal

import torch

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.models.stored.kinds import WHOLE_ROW
from ramify.quantization.weight import QuantisedWeight

KERNEL_GROUPS = (128, 64, 32, 16)


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 [..., n] -> uint8 codes [..., n * 32 / bits], the lowest bits of a word first.

    Args:
        words: packed along the last dimension; any strides.
        bits: 4 or 8.
    """
    halves = words.contiguous().view(torch.uint8)
    if bits == 8:
        return halves
    return torch.stack([halves & 15, halves >> 4], dim=-1).flatten(-2)


def check_finite(name: str, scales: torch.Tensor) -> None:
    """Raises `CheckpointError` for a scale that is no finite number."""
    if not torch.isfinite(scales).all():
        raise CheckpointError(f"tensor {name} holds a scale that is no finite number: fetch the checkpoint again")


def num_groups(columns: int, group_size: int) -> int:
    """Groups of a row."""
    return 1 if group_size == WHOLE_ROW else -(-columns // group_size)


def as_weight(
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    bits: Literal[4, 8],
    permutation: torch.Tensor | None = None,
    group_size: int = WHOLE_ROW,
) -> QuantisedWeight:
    """``scale * (code - zero)`` as a `QuantisedWeight`.

    The product of a stored scale (float16 or bfloat16) and a zero point is exact in float32, and so is the weight.

    Args:
        codes: uint8 [rows, columns], 0 .. 2^bits - 1, in groups that follow one another.
        scales: [rows, groups], finite.
        zeros: uint8 [rows, groups]; None for the middle, 2^(bits - 1).
        bits: 4 or 8.
        permutation: the input column of each column of the codes; None for the natural order.
        group_size: columns of a group; the last one may be shorter.

    Raises:
        UnsupportedModelError: groups that the kernels do not run.
    """
    middle = 1 << (bits - 1)
    scales = scales.float()
    mins = None
    if zeros is not None and not (zeros == middle).all():
        # Eight-bit codes become signed below: their zero moves with them.
        mins = -scales * (zeros.float() - (middle if bits == 8 else 0))
    if bits == 8:
        codes = (codes ^ 128).view(torch.int8)
    size, repeats = _kernel_groups(codes.shape[1], scales.shape[1], group_size)
    return QuantisedWeight(
        codes=codes.contiguous(),
        scales=_repeat(scales, repeats, codes.shape[1], size),
        mins=None if mins is None else _repeat(mins, repeats, codes.shape[1], size),
        group_size=size,
        bits=bits,
        permutation=permutation,
    )


def _kernel_groups(columns: int, groups: int, group_size: int) -> tuple[int, int]:
    """A group size of the kernels, and how many such groups a stored one becomes."""
    if groups == 1:
        size = next((size for size in KERNEL_GROUPS[:3] if columns % size == 0), 32)
        return size, -(-columns // size)
    size = next((size for size in KERNEL_GROUPS if group_size % size == 0), 0)
    if not size:
        raise UnsupportedModelError(f"groups of {group_size} weights are not supported; ramify runs multiples of 16")
    return size, group_size // size


def _repeat(numbers: torch.Tensor, repeats: int, columns: int, size: int) -> torch.Tensor:
    return numbers.repeat_interleave(repeats, dim=1)[:, : -(-columns // size)].contiguous()
