"""The block formats of GGUF as codes, scales and mins: the numbers of the file, regrouped and never rounded.

Each reader gets the bytes of a tensor as [rows, blocks, block bytes]. A weight is ``scale * code``, plus ``min`` where
the format has one. Scales of the K formats are products of a float16 and a small integer, which float32 holds exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from ramify.errors import CheckpointError
from ramify.models.gguf.types import READABLE
from ramify.quantization.weight import QuantisedWeight

_NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""The 16 values of the IQ4 formats."""
_BYTES = {kind.name: kind.block_bytes for kind in READABLE.values()}


@dataclass(frozen=True, slots=True)
class _Parts:
    """A tensor taken apart.

    Attributes:
        codes: [rows, blocks, weights of a block]: uint8 0..15 for 4 bits (8 stands for zero without mins), else int8.
        scales, mins: float32 [rows, blocks, groups of a block].
        bits: 4 or 8.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    mins: torch.Tensor | None
    bits: Literal[4, 8]


def read_blocks(name: str, kind: str, raw: torch.Tensor, rows: int, columns: int) -> QuantisedWeight:
    """A quantised tensor of a file.

    Args:
        name: for errors.
        kind: the format, one of `FORMATS`.
        raw: uint8, all bytes of the tensor.
        rows, columns: its shape; a row is a whole number of blocks.

    Raises:
        CheckpointError: a scale or min is no finite number.
    """
    parts = FORMATS[kind](raw.view(rows, -1, _BYTES[kind]))
    for what, numbers in (("scale", parts.scales), ("min", parts.mins)):
        if numbers is not None and not torch.isfinite(numbers).all():
            raise CheckpointError(f"tensor {name} ({kind}) has a {what} that is no finite number: fetch the file again")
    scales = parts.scales.reshape(rows, -1)
    return QuantisedWeight(
        codes=parts.codes.reshape(rows, columns),
        scales=scales,
        mins=None if parts.mins is None else parts.mins.reshape(rows, -1),
        group_size=columns // scales.shape[1],
        bits=parts.bits,
    )


def _half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The float16 at a byte of each block, as float32 [rows, blocks, 1]."""
    return blocks[..., at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor, run: int) -> torch.Tensor:
    """Runs of bytes to twice as many codes: the low halves of a run, then its high halves."""
    runs = packed.reshape(*packed.shape[:-1], -1, run)
    return torch.cat([runs & 15, runs >> 4], dim=-1).flatten(-2)


def _bits_of(packed: torch.Tensor, width: int, parts: int) -> torch.Tensor:
    """[..., n] bytes -> [..., parts, n]: field after field of `width` bits, from the low end."""
    return torch.stack([(packed >> (width * part)) & ((1 << width) - 1) for part in range(parts)], dim=-2)


def _signed(codes: torch.Tensor, zero: int) -> torch.Tensor:
    return (codes.to(torch.int16) - zero).to(torch.int8)


def _q4_0(b: torch.Tensor) -> _Parts:
    return _Parts(_nibbles(b[..., 2:], 16), _half(b, 0), None, 4)


def _q4_1(b: torch.Tensor) -> _Parts:
    return _Parts(_nibbles(b[..., 4:], 16), _half(b, 0), _half(b, 2), 4)


def _fifth_bits(packed: torch.Tensor) -> torch.Tensor:
    """[..., 4] bytes -> [..., 32]: bit after bit, shifted to its place in a 5-bit code."""
    return _bits_of(packed, 1, 8).transpose(-1, -2).flatten(-2) << 4


def _q5_0(b: torch.Tensor) -> _Parts:
    codes = _nibbles(b[..., 6:], 16) | _fifth_bits(b[..., 2:6])
    return _Parts(_signed(codes, 16), _half(b, 0), None, 8)


def _q5_1(b: torch.Tensor) -> _Parts:
    codes = _nibbles(b[..., 8:], 16) | _fifth_bits(b[..., 4:8])
    return _Parts(codes.view(torch.int8), _half(b, 0), _half(b, 2), 8)


def _q8_0(b: torch.Tensor) -> _Parts:
    return _Parts(b[..., 2:].contiguous().view(torch.int8), _half(b, 0), None, 8)


def _q2_k(b: torch.Tensor) -> _Parts:
    fields = b[..., :16]
    codes = _bits_of(b[..., 16:80].reshape(*b.shape[:-1], 2, 32), 2, 4).flatten(-3)
    return _Parts(codes, _half(b, 80) * (fields & 15), -(_half(b, 82) * (fields >> 4)), 4)


def _q3_k(b: torch.Tensor) -> _Parts:
    high = _bits_of(b[..., :32], 1, 8).flatten(-2)
    low = _bits_of(b[..., 32:96].reshape(*b.shape[:-1], 2, 32), 2, 4).flatten(-3)
    fields = b[..., 96:108]
    lows = _nibbles(fields[..., :8], 8)
    highs = _bits_of(fields[..., 8:], 2, 4).flatten(-2)
    scales = _signed(lows | (highs << 4), 32)
    # Three bits make -4..3; four-bit codes count from 8.
    return _Parts((low | (high << 2)) + 4, _half(b, 108) * scales, None, 4)


def _six_bit_pairs(fields: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The 12 bytes of Q4_K and Q5_K -> eight scales and eight mins of 6 bits each."""
    first, second, third = fields[..., 0:4], fields[..., 4:8], fields[..., 8:12]
    scales = torch.cat([first & 63, (third & 15) | ((first >> 6) << 4)], dim=-1)
    mins = torch.cat([second & 63, (third >> 4) | ((second >> 6) << 4)], dim=-1)
    return scales, mins


def _q4_k(b: torch.Tensor) -> _Parts:
    scales, mins = _six_bit_pairs(b[..., 4:16])
    return _Parts(_nibbles(b[..., 16:], 32), _half(b, 0) * scales, -(_half(b, 2) * mins), 4)


def _q5_k(b: torch.Tensor) -> _Parts:
    scales, mins = _six_bit_pairs(b[..., 4:16])
    codes = _nibbles(b[..., 48:], 32) | (_bits_of(b[..., 16:48], 1, 8).flatten(-2) << 4)
    return _Parts(codes.view(torch.int8), _half(b, 0) * scales, -(_half(b, 2) * mins), 8)


def _q6_k(b: torch.Tensor) -> _Parts:
    low = _nibbles(b[..., :128], 64)
    high = _bits_of(b[..., 128:192].reshape(*b.shape[:-1], 2, 32), 2, 4).flatten(-3)
    scales = b[..., 192:208].contiguous().view(torch.int8)
    return _Parts(_signed(low | (high << 4), 32), _half(b, 208) * scales, None, 8)


def _nonlinear(codes: torch.Tensor) -> torch.Tensor:
    return torch.tensor(_NONLINEAR, dtype=torch.int8)[codes.int()]


def _iq4_nl(b: torch.Tensor) -> _Parts:
    return _Parts(_nonlinear(_nibbles(b[..., 2:], 16)), _half(b, 0), None, 8)


def _iq4_xs(b: torch.Tensor) -> _Parts:
    highs = _bits_of(b[..., 2:4], 2, 4).transpose(-1, -2).flatten(-2)
    lows = _bits_of(b[..., 4:8], 4, 2).transpose(-1, -2).flatten(-2)
    scales = _signed(lows | (highs << 4), 32)
    return _Parts(_nonlinear(_nibbles(b[..., 8:], 16)), _half(b, 0) * scales, None, 8)


FORMATS: Mapping[str, Callable[[torch.Tensor], _Parts]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}
