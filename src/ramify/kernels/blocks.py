"""How codes and numbers of a matrix lie in memory: in blocks of 16 columns of the output.

A block of codes holds four consecutive inputs of its 16 columns side by side, 64 bytes a step:

- 8 bits: byte `[block, step, column, i]` is the code of input `4 * step + i`;
- 4 bits: of each 32 inputs, byte `[block, 4 * chunk + step, column, i]` holds input `32 * chunk + 4 * step + i` in its
  low half and the one 16 inputs later in its high half;
- 4 bits with integer scales: of each pair of 32 inputs, bytes `[block, 8 * pair + step, column, 0..1]` hold two inputs
  of the first 32 in their low halves, from `2 * step` on, and those 16 inputs later in their high halves; bytes 2 and 3
  hold likewise two of the second, those of step 1 in step 0, of step 0 in step 1 and so on: AVX2 then sums each 32 in
  lanes of their own, and for AVX-512 one blend makes steps of one 32;
- 6 bits: of each 16 inputs, byte `[block, 3 * part + step, column, i]` holds input `16 * part + 4 * step + i` in its
  low 6 bits; the high 2 bits of the three steps, the first being the highest, are the input at `16 * part + 12 + i`.
"""

from __future__ import annotations

import torch

BLOCK = 16
PANEL = 32  # columns that a kernel computes together: two blocks
STEP = 4  # consecutive inputs that stand side by side
CHUNK = 32  # inputs whose 4-bit codes share 16 bytes a column
_LINE = BLOCK * STEP
_PAIR = torch.arange(2 * CHUNK).view(2, CHUNK // 4, 2, 2)  # [of two, two steps, step, input]
_PAIRED = torch.stack([_PAIR[0], _PAIR[1].flip(1)], dim=2).flatten()
_SHIFTS = (4, 2, 0)
"""Where the pieces of a fourth 6-bit code come from."""


def padded(size: int, multiple: int) -> int:
    """The least multiple that is not below the size."""
    return -(-size // multiple) * multiple


def pad(matrix: torch.Tensor, rows: int, columns: int, value: int) -> torch.Tensor:
    """The matrix with rows and columns of a value added up to this shape."""
    padding = (0, columns - matrix.shape[1], 0, rows - matrix.shape[0])
    return torch.nn.functional.pad(matrix, padding, value=value)


def interleaved(matrix: torch.Tensor, side_by_side: int) -> torch.Tensor:
    """[N, K] as [blocks, K / side_by_side, 16, side_by_side]."""
    blocks = matrix.view(matrix.shape[0] // BLOCK, BLOCK, -1, side_by_side)
    return blocks.transpose(1, 2).contiguous()


def rows_of(blocks: torch.Tensor) -> torch.Tensor:
    """What was interleaved: [N, K]."""
    return blocks.transpose(1, 2).reshape(blocks.shape[0] * BLOCK, -1)


def packed_codes(codes: torch.Tensor, bits: int, *, pairs: bool = False) -> torch.Tensor:
    """Lay codes out.

    Args:
        codes: [N, K] uint8 below `2 ** bits`; N a multiple of 16, K of 32.
        bits: 4, 6 or 8.
        pairs: whether two times 32 inputs are side by side, as 4 bits with integer scales are; K is a multiple of 64.

    Returns:
        [blocks, K / 32 * bits, 16, 4] uint8.
    """
    if pairs:
        codes = codes.view(len(codes), -1, 2 * CHUNK)[:, :, _PAIRED].flatten(1)
    blocks = interleaved(codes, STEP)
    if bits == 8:
        return blocks
    if bits == 6:
        steps = blocks.view(len(blocks), -1, 4, _LINE)
        last = torch.cat([steps[:, :, 3:] >> shift & 3 for shift in _SHIFTS], dim=2)
        return (steps[:, :, :3] | last << 6).view(len(blocks), -1, BLOCK, STEP)
    low, high = blocks.view(len(blocks), -1, 2, _halves(pairs), _LINE).unbind(2)
    return (low | high << 4).view(len(blocks), -1, BLOCK, STEP)


def unpacked_codes(blocks: torch.Tensor, bits: int, *, pairs: bool = False) -> torch.Tensor:
    """The codes that `packed_codes` laid out: [N, K] uint8."""
    if bits == 8:
        return rows_of(blocks)
    if bits == 6:
        steps = blocks.view(len(blocks), -1, 3, _LINE)
        high = steps >> 6
        last = high[:, :, :1] << _SHIFTS[0] | high[:, :, 1:2] << _SHIFTS[1] | high[:, :, 2:]
        codes = torch.cat([steps & 63, last], dim=2)
    else:
        steps = blocks.view(len(blocks), -1, _halves(pairs), _LINE)
        codes = torch.cat([steps & 15, steps >> 4], dim=2)
    rows = rows_of(codes.view(len(blocks), -1, BLOCK, STEP))
    return rows.view(len(rows), -1, 2 * CHUNK)[:, :, _PAIRED.argsort()].flatten(1) if pairs else rows


def _halves(pairs: bool) -> int:
    """Steps that hold 4-bit codes in their low halves, before those in their high ones."""
    return CHUNK // STEP if pairs else CHUNK // STEP // 2
