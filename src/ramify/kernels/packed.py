"""Weights as the matrix kernels read them: one layout for every instruction set, so that cached files work everywhere.

Columns of the output go in blocks of 16 (their number is padded to 32), and inputs are padded to whole groups. Codes
lie as `kernels.blocks` says; scales, minima and factors are `[block, group, column]`. bfloat16 blocks hold two
consecutive inputs side by side, float32 blocks one.

A weight is one of these, where codes count from 128, 32 or 8 (of 8, 6 or 4 bits; the first are stored so) or from 0:

- `scale * code`, and `scale * code + min` with minima, which 4-bit codes from 0 go with: float scales;
- `factor * (scale * code)`: scales are integers, one for 32 inputs, and a float factor belongs to the inputs that
  share a scale of the activation. All between two factors is then summed as integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

import torch

from ramify.errors import ConfigError
from ramify.kernels.blocks import (
    BLOCK,
    CHUNK,
    PANEL,
    interleaved,
    packed_codes,
    pad,
    padded,
    rows_of,
    unpacked_codes,
)
from ramify.kernels.native import native

Kind = Literal["w8a8", "w6a8", "w4a8", "w8a16", "w4a16", "bfloat16", "float32"]

GROUP_SIZES = (16, 32, 64, 128)
ACTIVATION_GROUPS = (32, 64, 128)
FACTOR_GROUPS = (64, 128)
"""Those of a weight with integer scales: whole pairs of 32 inputs."""
_ZEROS = {4: 8, 6: 32}
"""What symmetric codes are stored from, by bits."""
_LARGEST_SCALE, _LARGEST_6 = 127, 31
_BITS = {"w8a8": 8, "w6a8": 6, "w4a8": 4, "w8a16": 8, "w4a16": 4, "bfloat16": 16, "float32": 32}


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A weight in the layout of the kernels.

    Attributes:
        rows: outputs, N.
        columns: inputs, K.
        kind: what is stored and how it is multiplied: weights of 8, 6 or 4 bits with activations of 8 bits (`w8a8`,
            `w6a8`, `w4a8`) or with float ones (`w8a16`, `w4a16`), or floats.
        group_size: inputs that share a scale of the weight; 0 for floats.
        activation_group: inputs that share a scale of an activation, and the weight's factor if it has one; 0 where
            activations stay floats.
        tensors: contiguous buffers, to be saved and mapped as they are: "codes" uint8 and "scales" float16 or float32
            and perhaps "mins" of either; or "codes", "scales" int8 and "factors" bfloat16; or "weight".
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
        return _BITS[self.kind]

    @property
    def is_integer(self) -> bool:
        """Whether the weight is codes and scales."""
        return self.group_size != 0

    @property
    def padded_columns(self) -> int:
        """Inputs with the padding to whole groups."""
        return padded(self.columns, max(self.group_size, self.activation_group, CHUNK))

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
        scales, mins = self.tensors["scales"], self.tensors.get("mins")
        return native().IntMatrix(
            codes=self.tensors["codes"].data_ptr(),
            scales=scales.data_ptr(),
            mins=_address(mins),
            factors=_address(self.tensors.get("factors")),
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
        return 0 if "mins" in self.tensors else _ZEROS.get(self.bits, 0)


def own_activation_group(columns: int) -> int:
    """The inputs that share a scale of an activation where weights have integer scales: no more padding than of 64."""
    return max(size for size in FACTOR_GROUPS if padded(columns, FACTOR_GROUPS[0]) % size == 0)


def pack_int(
    codes: torch.Tensor,
    scales: torch.Tensor,
    mins: torch.Tensor | None = None,
    *,
    factors: torch.Tensor | None = None,
    bits: int,
    activations: Literal["int8", "float"] = "int8",
    group_size: int | None = None,
    activation_group: int = 32,
) -> PackedMatrix:
    """Lay integer codes out.

    Args:
        codes: [N, K]; 8 bits: int8, or uint8 with `mins`; 6 bits: int8 in -31..31; 4 bits: uint8 in 0..15.
        scales: [N, G] float16 or float32, kept in that type, or int8 above -128 with `factors`; G = ceil(K /
            group_size).
        mins: [N, G] float16 or float32: a weight is `scale * code + min`. Without it a weight is `scale * code`, where
            4-bit codes count from 8.
        factors: [N, A] bfloat16, not negative; A = ceil(K / activation_group). A weight is `factor * scale * code`, in
            groups of 32. Always with 6 bits, never with 8; activation_group is then 64 or 128.
        bits: 8, 6 or 4.
        activations: "int8" quantises them a row and a group at a time, "float" leaves them.
        group_size: 16, 32, 64 or 128 inputs; found from the shapes if only one of them fits.
        activation_group: 32, 64 or 128 inputs.

    Raises:
        ConfigError: shapes, types or sizes that do not fit together.
    """
    if factors is None:
        group = _check(codes, scales, mins, bits, group_size, activation_group)
    else:
        group = CHUNK
        _check_factors(codes, scales, mins, factors, bits, activations, group_size, activation_group)
    if codes.dtype == torch.uint8 and bits == 8:
        assert mins is not None
        codes, mins = (codes ^ 0x80).view(torch.int8), mins.float() + 128 * scales.float()
    whole = padded(codes.shape[1], max(group, activation_group if activations == "int8" else 0, CHUNK))
    if codes.dtype == torch.int8:
        codes = (codes ^ -128 if bits == 8 else codes + _ZEROS[bits]).view(torch.uint8)
    filled = pad(codes, padded(codes.shape[0], PANEL), whole, 128 if bits == 8 else _ZEROS[bits])
    pairs = bits == 4 and factors is not None
    tensors = {"codes": packed_codes(filled, bits, pairs=pairs), "scales": _pack_groups(scales, whole // group)}
    if mins is not None:
        tensors["mins"] = _pack_groups(mins, whole // group)
    if factors is not None:
        tensors["factors"] = _pack_groups(factors, whole // activation_group)
    integer = activations == "int8"
    kind = cast(Kind, f"w{bits}a{8 if integer else 16}")
    return PackedMatrix(codes.shape[0], codes.shape[1], kind, group, activation_group if integer else 0, tensors)


def pack_float(weight: torch.Tensor) -> PackedMatrix:
    """Lay out a bfloat16 or float32 weight [N, K].

    Raises:
        ConfigError: another type or shape.
    """
    if weight.ndim != 2 or weight.dtype not in (torch.bfloat16, torch.float32):
        raise ConfigError(f"a weight {tuple(weight.shape)} of {weight.dtype}: give [N, K] bfloat16 or float32")
    kind: Kind = "bfloat16" if weight.dtype == torch.bfloat16 else "float32"
    filled = pad(weight, padded(weight.shape[0], PANEL), padded(weight.shape[1], CHUNK), 0)
    packed = interleaved(filled, 2 if kind == "bfloat16" else 1)
    return PackedMatrix(weight.shape[0], weight.shape[1], kind, 0, 0, {"weight": packed})


def integer_codes(weight: PackedMatrix) -> torch.Tensor:
    """Codes as the integers that scales multiply: [N padded, K padded] int8."""
    pairs = weight.bits == 4 and "factors" in weight.tensors
    codes = unpacked_codes(weight.tensors["codes"], weight.bits, pairs=pairs).view(torch.int8)
    return codes ^ -128 if weight.bits == 8 else codes - weight.zero


def slices(weight: PackedMatrix, rows: int) -> Iterator[PackedMatrix]:
    """The weight in parts of so many outputs, a multiple of 32; they share its memory. The last may be smaller."""
    for begin in range(0, weight.rows, rows):
        tensors = {name: tensor[begin // BLOCK : (begin + rows) // BLOCK] for name, tensor in weight.tensors.items()}
        yield replace(weight, rows=min(rows, weight.rows - begin), tensors=tensors)


def group_values(weight: PackedMatrix, name: Literal["scales", "mins", "factors"]) -> torch.Tensor:
    """Scales, minima or factors: [N padded, G] float32."""
    return weight.tensors[name].float().transpose(1, 2).flatten(0, 1)


def dequantised(weight: PackedMatrix) -> torch.Tensor:
    """The weight as floats: [N, K] float32, of a float weight its own values."""
    if not weight.is_integer:
        return rows_of(weight.tensors["weight"])[: weight.rows, : weight.columns].float()
    groups = integer_codes(weight).float().view(-1, weight.padded_columns // weight.group_size, weight.group_size)
    scales = group_values(weight, "scales")
    if "factors" in weight.tensors:  # exact, and so is the product with a code
        factors = group_values(weight, "factors")
        scales *= factors.repeat_interleave(weight.activation_group // weight.group_size, dim=1)
    values = groups * scales.unsqueeze(-1)
    if "mins" in weight.tensors:
        values += group_values(weight, "mins").unsqueeze(-1)
    return values.flatten(1)[: weight.rows, : weight.columns]


def _check(
    codes: torch.Tensor, scales: torch.Tensor, mins: torch.Tensor | None, bits: int, group: int | None, activations: int
) -> int:
    types = {8: (torch.int8,) if mins is None else (torch.int8, torch.uint8), 4: (torch.uint8,)}
    if bits not in types:
        raise ConfigError(f"bits={bits} does not work without factors: use 8 or 4")
    _check_codes(codes, bits, types[bits], activations)
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


def _check_factors(
    codes: torch.Tensor,
    scales: torch.Tensor,
    mins: torch.Tensor | None,
    factors: torch.Tensor,
    bits: int,
    activations: str,
    group: int | None,
    activation_group: int,
) -> None:
    if mins is not None or activations != "int8" or bits not in _ZEROS:
        raise ConfigError("factors go with 4 or 6 bits, activations='int8', and no mins: leave factors out")
    _check_codes(codes, bits, (torch.int8,) if bits == 6 else (torch.uint8,), activation_group)
    if activation_group not in FACTOR_GROUPS:
        raise ConfigError(f"activation_group={activation_group} does not work with factors: use one of {FACTOR_GROUPS}")
    if group not in (None, CHUNK):
        raise ConfigError(f"group_size={group} does not work with factors: repeat the scales, one for {CHUNK} inputs")
    given = (("scales", scales, torch.int8, CHUNK), ("factors", factors, torch.bfloat16, activation_group))
    for name, values, kind, size in given:
        wanted = (codes.shape[0], -(-codes.shape[1] // size))
        if values.dtype != kind or values.shape != wanted:
            raise ConfigError(f"{name} {tuple(values.shape)} of {values.dtype}: give {list(wanted)} of {kind}")
    if int(scales.min()) < -_LARGEST_SCALE:
        raise ConfigError(f"a scale is {int(scales.min())}: scales go from {-_LARGEST_SCALE} to {_LARGEST_SCALE}")
    if not bool((factors >= 0).all()) or not bool(factors.isfinite().all()):
        raise ConfigError("a factor is negative or not finite: give the scales its sign")


def _check_codes(codes: torch.Tensor, bits: int, types: tuple[torch.dtype, ...], activation_group: int) -> None:
    if codes.ndim != 2 or codes.dtype not in types or 0 in codes.shape:
        raise ConfigError(f"{bits}-bit codes {tuple(codes.shape)} of {codes.dtype}: give [N, K] of {types}")
    if bits == 4 and int(codes.max()) > 15:
        raise ConfigError(f"a 4-bit code is {int(codes.max())}: codes go from 0 to 15")
    if bits == 6 and max(int(codes.max()), -int(codes.min())) > _LARGEST_6:
        raise ConfigError(f"6-bit codes are {int(codes.min())} to {int(codes.max())}: they go from -31 to 31")
    if activation_group not in ACTIVATION_GROUPS:
        raise ConfigError(f"activation_group={activation_group} does not work: use one of {ACTIVATION_GROUPS}")


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _pack_groups(values: torch.Tensor, groups: int) -> torch.Tensor:
    filled = pad(values, padded(values.shape[0], PANEL), groups, 0)
    return filled.view(-1, BLOCK, groups).transpose(1, 2).contiguous()
