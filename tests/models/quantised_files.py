"""Turns small checkpoints into published quantised forms, packed from the definitions of the formats.

Each also gives the numbers that its tensors stand for, by the plain formula, so that a reader can be held against
something that shares no code with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Pack = Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor]]
"""A module's name and float weight to its tensors and the numbers that they stand for."""
_NOT_LINEAR = ("embed_tokens", "norm", "lm_head")
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight columns each four bits of a word hold, from the lowest on."""


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """[..., n] codes -> [..., n * bits / 32] int32, the first code in the lowest bits."""
    per_word = 32 // bits
    shifted = codes.long().view(*codes.shape[:-1], -1, per_word) << (bits * torch.arange(per_word))
    return shifted.sum(-1).to(torch.int64).bitwise_and(0xFFFFFFFF).sub(0).to(torch.uint32).view(torch.int32)


@dataclass(frozen=True)
class Grid:
    """A weight [rows, columns] rounded to codes: scale * (code - zero)."""

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    group_of: torch.Tensor

    @property
    def values(self) -> torch.Tensor:
        """float32 [rows, columns]."""
        zeros = self.zeros[:, self.group_of].float()
        return self.scales.float()[:, self.group_of] * (self.codes.float() - zeros)


def round_to_grid(
    weight: torch.Tensor, bits: int, group_size: int, symmetric: bool, order: torch.Tensor | None = None
) -> Grid:
    """Round to the nearest.

    Args:
        weight: [rows, columns].
        bits: of a code.
        group_size: columns of a group; -1 for whole rows.
        symmetric: the zero is the middle code.
        order: columns in the order in which groups take them.
    """
    columns, most = weight.shape[1], (1 << bits) - 1
    size = columns if group_size == -1 else group_size
    group_of = torch.empty(columns, dtype=torch.long)
    group_of[torch.arange(columns) if order is None else order] = torch.arange(columns) // size
    parts = [weight[:, group_of == group] for group in range(int(group_of.max()) + 1)]
    if symmetric:
        scales = torch.stack([part.abs().amax(1) for part in parts], 1) * 2 / most
        zeros = torch.full(scales.shape, (most + 1) // 2)
    else:
        low = torch.stack([part.amin(1).clamp(max=0) for part in parts], 1)
        scales = (torch.stack([part.amax(1) for part in parts], 1) - low) / most
        zeros = (-low / scales).round().long().clamp(0, most)
    scales = scales.half()
    codes = (weight / scales.float()[:, group_of] + zeros[:, group_of]).round().clamp(0, most)
    return Grid(codes.to(torch.uint8), scales, zeros, group_of)


def gptq(bits: int, group_size: int, symmetric: bool, version: int = 1, act_order: bool = False) -> Pack:
    """The layout of AutoGPTQ (version 1: zeros less one) and GPTQModel (version 2)."""

    def pack(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        generator = torch.Generator().manual_seed(len(name))
        order = torch.randperm(weight.shape[1], generator=generator) if act_order else None
        grid = round_to_grid(weight, bits, group_size, symmetric, order)
        stored = (grid.zeros - (1 if version == 1 else 0)) & ((1 << bits) - 1)
        return {
            f"{name}.qweight": pack_words(grid.codes, bits).T.contiguous(),
            f"{name}.qzeros": pack_words(stored.T.contiguous(), bits),
            f"{name}.scales": grid.scales.T.contiguous(),
            f"{name}.g_idx": grid.group_of.int(),
        }, grid.values

    return pack


def awq(group_size: int) -> Pack:
    """The gemm layout of AutoAWQ."""

    def shuffled(codes: torch.Tensor) -> torch.Tensor:
        return codes.reshape(len(codes), -1, 8)[..., AWQ_ORDER].flatten(1)

    def pack(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        grid = round_to_grid(weight, 4, group_size, symmetric=False)
        return {
            f"{name}.qweight": pack_words(shuffled(grid.codes.T), 4),
            f"{name}.qzeros": pack_words(shuffled(grid.zeros.T), 4),
            f"{name}.scales": grid.scales.T.contiguous(),
        }, grid.values

    return pack


def compressed_integers(bits: int, group_size: int, symmetric: bool) -> Pack:
    """pack-quantized of compressed-tensors."""

    def pack(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        grid = round_to_grid(weight, bits, group_size, symmetric)
        tensors = {
            f"{name}.weight_packed": pack_words(grid.codes, bits),
            f"{name}.weight_scale": grid.scales,
            f"{name}.weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            tensors[f"{name}.weight_zero_point"] = pack_words(grid.zeros.T.contiguous(), bits).T.contiguous()
        return tensors, grid.values

    return pack


def compressed_int8(symmetric: bool = True) -> Pack:
    """int-quantized of compressed-tensors: one scale a row."""

    def pack(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        grid = round_to_grid(weight, 8, -1, symmetric)
        tensors = {
            f"{name}.weight": (grid.codes.int() - 128).to(torch.int8),
            f"{name}.weight_scale": grid.scales.bfloat16(),
        }
        if not symmetric:
            tensors[f"{name}.weight_zero_point"] = (grid.zeros - 128).to(torch.int8)
        scales = tensors[f"{name}.weight_scale"].float()
        return tensors, scales * (grid.codes.float() - grid.zeros.float())

    return pack


def float8(block: tuple[int, int] | None, scale_name: str, per_row: bool = False) -> Pack:
    """e4m3 with a scale for each block, each row, or all."""

    def pack(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        rows, columns = weight.shape
        high, wide = block or ((1, columns) if per_row else (rows, columns))
        scales = torch.empty(-(-rows // high), -(-columns // wide))
        codes, values = torch.empty(rows, columns, dtype=torch.float8_e4m3fn), torch.empty(rows, columns)
        for i, j in ((i, j) for i in range(scales.shape[0]) for j in range(scales.shape[1])):
            part = slice(i * high, (i + 1) * high), slice(j * wide, (j + 1) * wide)
            scales[i, j] = weight[part].abs().max() / 448
            codes[part] = (weight[part] / scales[i, j]).to(torch.float8_e4m3fn)
            values[part] = codes[part].float() * scales[i, j]
        stored = scales if block or per_row else scales.reshape(())
        tensors = {f"{name}.weight": codes, f"{name}.{scale_name}": stored, f"{name}.input_scale": torch.tensor(0.5)}
        return tensors, values

    return pack


def quantise_checkpoint(
    folder: Path, pack: Pack, config: Mapping[str, Any] | None, keep: tuple[str, ...] = ()
) -> Tensors:
    """Rewrite a checkpoint in place; beside it, in ``folder/float``, the float checkpoint of the same numbers.

    Args:
        folder: with one `model.safetensors`.
        pack: the format.
        config: what `quantization_config` shall say.
        keep: parts of names of matrices that stay floats.

    Returns:
        The float tensors by name.
    """
    tensors, values = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if weight.ndim != 2 or any(part in name for part in (*_NOT_LINEAR, *keep)):
            tensors[name] = values[name] = weight
            continue
        packed, values[name] = pack(module, weight)
        tensors.update(packed)
    original = (folder / "config.json").read_text()
    (folder / "float").mkdir()
    (folder / "float" / "config.json").write_text(original)
    save_file(values, folder / "float" / "model.safetensors", metadata={"format": "pt"})
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "model.safetensors")
    entry = {} if config is None else {"quantization_config": dict(config)}
    (folder / "config.json").write_text(json.dumps({**json.loads(original), **entry}))
    return values
