"""Weights as the matrix kernels read them: one layout for every instruction set, so that cached files work everywhere.

Columns of the output go in blocks of 16 (their number is padded to 32). An integer block holds four consecutive inputs
of its 16 columns side by side, 64 bytes a step:

- 8 bits: byte `[block, step, column, i]` is `code + 128` of input `4 * step + i`;
- 4 bits: of each 32 inputs, byte `[block, 4 * chunk + step, column, i]` holds input `32 * chunk + 4 * step + i` in its
  low half and the one 16 inputs later in its high half.

Scales (and minima) are `[block, group, column]`. bfloat16 blocks hold two consecutive inputs side by side, float32
blocks one. Inputs are padded to whole groups. A weight is `scale * code + min`, where symmetric 4-bit codes count from
8, and all others from 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch

from ramify.errors import ConfigError
from ramify.kernels.native import native

Kind = Literal["w8a8", "w4a8", "w8a16", "w4a16", "bfloat16", "float32"]

BLOCK = 16
PANEL = 32  # columns that a kernel computes together: two blocks
STEP = 4  # consecutive inputs that stand side by side
HALVES = 32  # inputs whose 4-bit codes share 16 bytes a column
GROUP_SIZES = (16, 32, 64, 128)
ACTIVATION_GROUPS = (32, 64, 128)
SYMMETRIC_ZERO = 8  # of 4-bit codes


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A weight in the layout of the kernels.

    Attributes:
        rows: outputs, N.
        columns: inputs, K.
        kind: what is stored and how it is multiplied: weights of 8 or 4 bits with activations of 8 bits (`w8a8`,
            `w4a8`) or with float ones (`w8a16`, `w4a16`), or floats.
        group_size: inputs that share a scale of the weight; 0 for floats.
        activation_group: inputs that share a scale of an activation; 0 where activations stay floats.
        tensors: contiguous buffers, to be saved and mapped as they are: "codes" uint8, "scales" float16 or float32 and
            perhaps "mins" of either; or "weight".
    """

    rows: int
    columns: int
    kind: Kind
    group_size: int
    activation_group: int
    tensors: dict[str, torch.Tensor]

    @property
    def bits(self) -> int:
        """Bits of a code; 16 or 32 for floats."""
        return {"w8a8": 8, "w4a8": 4, "w8a16": 8, "w4a16": 4, "bfloat16": 16, "float32": 32}[self.kind]

    @property
    def is_integer(self) -> bool:
        """Whether the weight is codes and scales."""
        return self.group_size != 0

    @property
    def padded_columns(self) -> int:
        """Inputs with the padding to whole groups."""
        return _padded(self.columns, max(self.group_size, self.activation_group, HALVES))

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @cached_property
    def native(self) -> Any:
        """What the compiled kernels take of a weight: addresses and sizes."""
        if not self.is_integer:
            address, half = self.tensors["weight"].data_ptr(), self.kind == "bfloat16"
            return native().FloatMatrix(values=address, bfloat16=half, rows=self.rows, columns=self.columns)
        codes, scales, mins = self.tensors["codes"], self.tensors["scales"], self.tensors.get("mins")
        return native().IntMatrix(
            codes=codes.data_ptr(),
            scales=scales.data_ptr(),
            mins=0 if mins is None else mins.data_ptr(),
            half_scales=scales.dtype == torch.float16,
            half_mins=mins is not None and mins.dtype == torch.float16,
            bits=self.bits,
            rows=self.rows,
            columns=self.columns,
            padded_columns=self.padded_columns,
            group=self.group_size,
            activation_group=self.activation_group,
        )

    @property
    def zero(self) -> int:
        """What a code stands for as an integer is the code less this."""
        return SYMMETRIC_ZERO if self.bits == 4 and "mins" not in self.tensors else 0


def pack_int(
    codes: torch.Tensor,
    scales: torch.Tensor,
    mins: torch.Tensor | None = None,
    *,
    bits: int,
    activations: Literal["int8", "float"] = "int8",
    group_size: int | None = None,
    activation_group: int = 32,
) -> PackedMatrix:
    """Lay integer codes out.

    Args:
        codes: [N, K]; 8 bits: int8, or uint8 with `mins`; 4 bits: uint8 in 0..15.
        scales: [N, G] float16 or float32, kept in that type; G = ceil(K / group_size).
        mins: [N, G] float16 or float32: a weight is `scale * code + min`. Without it a weight is `scale * code`, where
            4-bit codes count from 8.
        bits: 8 or 4.
        activations: "int8" quantises them a row and a group at a time, "float" leaves them.
        group_size: 16, 32, 64 or 128 inputs; found from the shapes if only one of them fits.
        activation_group: 32, 64 or 128 inputs.

    Raises:
        ConfigError: shapes, types or sizes that do not fit together.
    """
    group = _check(codes, scales, mins, bits, group_size, activation_group)
    if codes.dtype == torch.uint8 and bits == 8:
        assert mins is not None
        codes, mins = (codes ^ 0x80).view(torch.int8), mins.float() + 128 * scales.float()
    whole = _padded(codes.shape[1], max(group, activation_group if activations == "int8" else 0, HALVES))
    stored = (codes ^ -128).view(torch.uint8) if bits == 8 else codes
    padding = 128 if bits == 8 else SYMMETRIC_ZERO
    packed = _interleave(_pad(stored, _padded(codes.shape[0], PANEL), whole, padding), STEP)
    if bits == 4:
        low, high = packed.view(packed.shape[0], -1, 2, HALVES // 8, BLOCK * STEP).unbind(2)
        packed = (low | (high << 4)).reshape(packed.shape[0], -1, BLOCK, STEP).contiguous()
    tensors = {"codes": packed, "scales": _pack_groups(scales, whole // group)}
    if mins is not None:
        tensors["mins"] = _pack_groups(mins, whole // group)
    integer = activations == "int8"
    kind: Kind = ("w8a8" if integer else "w8a16") if bits == 8 else ("w4a8" if integer else "w4a16")
    return PackedMatrix(codes.shape[0], codes.shape[1], kind, group, activation_group if integer else 0, tensors)


def pack_float(weight: torch.Tensor) -> PackedMatrix:
    """Lay out a bfloat16 or float32 weight [N, K].

    Raises:
        ConfigError: another type or shape.
    """
    if weight.ndim != 2 or weight.dtype not in (torch.bfloat16, torch.float32):
        raise ConfigError(f"a weight {tuple(weight.shape)} of {weight.dtype}: give [N, K] bfloat16 or float32")
    kind: Kind = "bfloat16" if weight.dtype == torch.bfloat16 else "float32"
    padded = _pad(weight, _padded(weight.shape[0], PANEL), _padded(weight.shape[1], HALVES), 0)
    packed = _interleave(padded, 2 if kind == "bfloat16" else 1)
    return PackedMatrix(weight.shape[0], weight.shape[1], kind, 0, 0, {"weight": packed})


def integer_codes(weight: PackedMatrix) -> torch.Tensor:
    """Codes as the integers that scales multiply: [N padded, K padded] int8."""
    packed = weight.tensors["codes"]
    if weight.bits == 8:
        return _rows_of(packed).view(torch.int8) ^ -128
    steps = packed.view(packed.shape[0], -1, 1, HALVES // 8, BLOCK * STEP)
    codes = torch.cat([steps & 15, steps >> 4], dim=2).view(packed.shape[0], -1, BLOCK, STEP)
    return _rows_of(codes).view(torch.int8) - weight.zero


def slices(weight: PackedMatrix, rows: int) -> Iterator[PackedMatrix]:
    """The weight in parts of so many outputs, a multiple of 32; they share its memory. The last may be smaller."""
    for begin in range(0, weight.rows, rows):
        tensors = {name: tensor[begin // BLOCK : (begin + rows) // BLOCK] for name, tensor in weight.tensors.items()}
        yield replace(weight, rows=min(rows, weight.rows - begin), tensors=tensors)


def group_values(weight: PackedMatrix, name: Literal["scales", "mins"]) -> torch.Tensor:
    """Scales or minima: [N padded, G] float32."""
    return weight.tensors[name].float().transpose(1, 2).flatten(0, 1)


def dequantised(weight: PackedMatrix) -> torch.Tensor:
    """The weight as floats: [N, K] float32, of a float weight its own values."""
    if not weight.is_integer:
        return _rows_of(weight.tensors["weight"])[: weight.rows, : weight.columns].float()
    groups = integer_codes(weight).float().view(-1, weight.padded_columns // weight.group_size, weight.group_size)
    values = groups * group_values(weight, "scales").unsqueeze(-1)
    if "mins" in weight.tensors:
        values += group_values(weight, "mins").unsqueeze(-1)
    return values.flatten(1)[: weight.rows, : weight.columns]


def _check(
    codes: torch.Tensor, scales: torch.Tensor, mins: torch.Tensor | None, bits: int, group: int | None, activations: int
) -> int:
    types = {8: (torch.int8,) if mins is None else (torch.int8, torch.uint8), 4: (torch.uint8,)}
    if bits not in types:
        raise ConfigError(f"bits={bits} does not work: use 8 or 4")
    if codes.ndim != 2 or codes.dtype not in types[bits] or 0 in codes.shape:
        raise ConfigError(f"{bits}-bit codes {tuple(codes.shape)} of {codes.dtype}: give [N, K] of {types[bits]}")
    if bits == 4 and int(codes.max()) > 15:
        raise ConfigError(f"a 4-bit code is {int(codes.max())}: codes go from 0 to 15")
    if activations not in ACTIVATION_GROUPS:
        raise ConfigError(f"activation_group={activations} does not work: use one of {ACTIVATION_GROUPS}")
    for name, values in (("scales", scales), ("mins", mins)):
        if values is not None and values.dtype not in (torch.float16, torch.float32):
            raise ConfigError(f"{name} are {values.dtype}: give float16 or float32")
        if values is not None and values.shape != (codes.shape[0], scales.shape[-1]):
            raise ConfigError(f"{name} {tuple(values.shape)} do not fit codes {tuple(codes.shape)}")
    fitting = [size for size in GROUP_SIZES if -(-codes.shape[1] // size) == scales.shape[1]]
    if group is None and len(fitting) == 1:
        return fitting[0]
    if group not in fitting:
        raise ConfigError(
            f"group_size={group} does not fit {scales.shape[1]} groups of {codes.shape[1]} inputs: use one of {fitting}"
        )
    return group


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _pad(matrix: torch.Tensor, rows: int, columns: int, value: int) -> torch.Tensor:
    padding = (0, columns - matrix.shape[1], 0, rows - matrix.shape[0])
    return torch.nn.functional.pad(matrix, padding, value=value)


def _interleave(matrix: torch.Tensor, side_by_side: int) -> torch.Tensor:
    blocks = matrix.view(matrix.shape[0] // BLOCK, BLOCK, -1, side_by_side)
    return blocks.transpose(1, 2).contiguous()


def _rows_of(blocks: torch.Tensor) -> torch.Tensor:
    return blocks.transpose(1, 2).reshape(blocks.shape[0] * BLOCK, -1)


def _pack_groups(values: torch.Tensor, groups: int) -> torch.Tensor:
    padded = _pad(values, _padded(values.shape[0], PANEL), groups, 0)
    return padded.view(-1, BLOCK, groups).transpose(1, 2).contiguous()
