"""The readers of each layout: a module's tensors to its `QuantisedWeight`, or to floats where the codes are floats.

A module is named as its float weight is, without ``.weight``. Sizes come from the model's config, so that tensors of
other sizes are told before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.models.safetensors_files import SafetensorsFiles
from ramify.models.stored.kinds import WHOLE_ROW, StoredQuantization
from ramify.models.stored.unpack import as_weight, check_finite, num_groups, unpack
from ramify.quantization.weight import QuantisedWeight

SCALE_KINDS = ("F16", "BF16", "F32")
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which four bits of a word hold each of its eight columns."""
_SUFFIX: Mapping[str, str] = {"gptq": "qweight", "gptq_v2": "qweight", "awq": "qweight", "packed": "weight_packed"}


def packed_name(scheme: StoredQuantization, module: str) -> str | None:
    """Name of the tensor with a module's codes; None where it is called ``weight`` as float weights are."""
    suffix = _SUFFIX.get(scheme.layout)
    return None if suffix is None else f"{module}.{suffix}"


def read_codes(
    files: SafetensorsFiles, scheme: StoredQuantization, module: str, rows: int, columns: int
) -> QuantisedWeight:
    """The weight of a module that is stored as integers.

    Raises:
        CheckpointError: a tensor is missing, misshapen, of another kind, or holds what cannot be.
        UnsupportedModelError: sizes that are not run.
    """
    return _READERS[scheme.layout](files, scheme, module, rows, columns)


def _gptq(files: SafetensorsFiles, scheme: StoredQuantization, module: str, rows: int, columns: int) -> QuantisedWeight:
    bits, groups = scheme.bits, num_groups(columns, scheme.group_size)
    if scheme.overrides:
        bits, groups = _own_sizes(files, module, columns)
    group_size = -(-columns // groups) if scheme.overrides or groups == 1 else scheme.group_size
    per_word = 32 // bits
    _check_words(module, per_word, rows, columns)
    words = files.take(f"{module}.qweight", (columns // per_word, rows), ("I32",))
    scales = files.take(f"{module}.scales", (groups, rows), SCALE_KINDS)
    zeros = unpack(files.take(f"{module}.qzeros", (groups, rows // per_word), ("I32",)), bits)
    check_finite(f"{module}.scales", scales)
    if scheme.layout == "gptq":  # the first version of the format stores zero - 1, modulo 2^bits
        zeros = (zeros + 1) & ((1 << bits) - 1)
    codes = unpack(words.T, bits)
    order = _order(files, f"{module}.g_idx", columns, groups, group_size)
    if order is not None:
        codes = codes[:, order]
    return as_weight(codes, scales.T, zeros.T, cast(Literal[4, 8], bits), order, group_size)


def _check_words(module: str, per_word: int, *sizes: int) -> None:
    """The layouts of GPTQ and AWQ have no place for part of a word."""
    if any(size % per_word for size in sizes):
        raise UnsupportedModelError(
            f"{module} is {' x '.join(map(str, sizes))} by config.json; its format packs multiples of {per_word}, so "
            "the file and config.json are not of one model"
        )


def _own_sizes(files: SafetensorsFiles, module: str, columns: int) -> tuple[int, int]:
    """Bits and groups of a module that may have others than the config's."""
    (height, *_), _ = files.stored_as(f"{module}.qweight")
    (groups, *_), _ = files.stored_as(f"{module}.scales")
    bits, rest = divmod(32 * height, columns)
    if rest or bits not in (4, 8):
        raise UnsupportedModelError(f"{module} has weights of {32 * height / columns:g} bits; ramify reads 4 and 8")
    if not 1 <= groups <= columns:
        raise CheckpointError(f"tensor {module}.scales has {groups} groups for {columns} columns; fetch it again")
    return bits, groups


def _order(files: SafetensorsFiles, name: str, columns: int, groups: int, group_size: int) -> torch.Tensor | None:
    """Columns in the order of their groups; None where they are in it already."""
    if name not in files:
        return None
    group_of = files.take(name, (columns,), ("I32", "I64")).long()
    expected = torch.arange(columns) // group_size
    if torch.equal(group_of, expected):
        return None
    order = torch.argsort(group_of, stable=True)
    if not torch.equal(group_of[order], expected):
        raise CheckpointError(
            f"tensor {name} does not put {columns} columns into {groups} groups of {group_size}: the file is corrupt, "
            "or its group_size is not the one in config.json"
        )
    return order


def _awq(files: SafetensorsFiles, scheme: StoredQuantization, module: str, rows: int, columns: int) -> QuantisedWeight:
    groups = num_groups(columns, scheme.group_size)
    _check_words(module, 8, rows)
    words = files.take(f"{module}.qweight", (columns, rows // 8), ("I32",))
    scales = files.take(f"{module}.scales", (groups, rows), SCALE_KINDS)
    zeros = files.take(f"{module}.qzeros", (groups, rows // 8), ("I32",))
    check_finite(f"{module}.scales", scales)
    return as_weight(_awq_columns(words).T, scales.T, _awq_columns(zeros).T, 4, group_size=scheme.group_size)


def _awq_columns(words: torch.Tensor) -> torch.Tensor:
    return unpack(words, 4).view(len(words), -1, 8)[..., _AWQ_ORDER].flatten(-2)


def _packed(
    files: SafetensorsFiles, scheme: StoredQuantization, module: str, rows: int, columns: int
) -> QuantisedWeight:
    bits, groups = scheme.bits, num_groups(columns, scheme.group_size)
    per_word = 32 // bits
    group_size = columns if scheme.group_size == WHOLE_ROW else scheme.group_size
    shape = files.take(f"{module}.weight_shape", (2,), ("I64", "I32"))
    if shape.tolist() != [rows, columns]:
        raise CheckpointError(f"tensor {module}.weight_shape says {shape.tolist()}; the config asks {[rows, columns]}")
    words = files.take(f"{module}.weight_packed", (rows, -(-columns // per_word)), ("I32",))
    scales = files.take(f"{module}.weight_scale", (rows, groups), SCALE_KINDS)
    check_finite(f"{module}.weight_scale", scales)
    zeros = None
    if not scheme.symmetric:
        packed = files.take(f"{module}.weight_zero_point", (-(-rows // per_word), groups), ("I32",))
        zeros = unpack(packed.T, bits)[:, :rows].T
    codes = unpack(words, bits)[:, :columns]
    order = _order(files, f"{module}.weight_g_idx", columns, groups, group_size)
    if order is not None:
        codes = codes[:, order]
    return as_weight(codes, scales, zeros, cast(Literal[4, 8], bits), order, group_size)


def _int8(files: SafetensorsFiles, scheme: StoredQuantization, module: str, rows: int, columns: int) -> QuantisedWeight:
    name = f"{module}.weight_scale"
    codes = files.take(f"{module}.weight", (rows, columns), ("I8",)).view(torch.uint8) ^ 128
    found, _ = files.stored_as(name)
    one = found in ((), (1,))  # a scale of the whole tensor
    groups = 1 if one else num_groups(columns, scheme.group_size)
    scales = files.take(name, found if one else (rows, groups), SCALE_KINDS)
    check_finite(name, scales)
    zeros = None
    if not scheme.symmetric:
        zeros = files.take(f"{module}.weight_zero_point", found if one else (rows, groups), ("I8",))
        zeros = zeros.view(torch.uint8).expand(rows, groups) ^ 128
    return as_weight(codes, scales.expand(rows, groups), zeros, 8, group_size=scheme.group_size)


_READERS: Mapping[str, Callable[[SafetensorsFiles, StoredQuantization, str, int, int], QuantisedWeight]] = {
    "gptq": _gptq,
    "gptq_v2": _gptq,
    "awq": _awq,
    "packed": _packed,
    "int8": _int8,
}


def read_float8(
    files: SafetensorsFiles, scheme: StoredQuantization, module: str, rows: int, columns: int
) -> torch.Tensor:
    """The weight of a module that is stored as float8 (e4m3): float32 [rows, columns], code times scale.

    Raises:
        CheckpointError: a tensor is missing, misshapen, of another kind, or holds what is no finite number.
    """
    codes = files.take(f"{module}.weight", (rows, columns), ("F8_E4M3",))
    inverse = f"{module}.weight_scale_inv"
    name = inverse if inverse in files else f"{module}.weight_scale"
    found, _ = files.stored_as(name)
    if scheme.block is not None:
        high, wide = scheme.block
        scales = files.take(name, (-(-rows // high), -(-columns // wide)), SCALE_KINDS).float()
        scales = scales.repeat_interleave(min(high, rows), 0)[:rows]
        scales = scales.repeat_interleave(min(wide, columns), 1)[:, :columns]
    elif found in ((), (1,), (1, 1)):
        scales = files.take(name, found, SCALE_KINDS).float()
    else:
        scales = files.take(name, found if found == (rows,) else (rows, 1), SCALE_KINDS).float().view(rows, 1)
    check_finite(name, scales)
    weight = codes.float() * scales
    check_finite(f"{module}.weight", weight)
    return weight
