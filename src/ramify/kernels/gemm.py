"""Matrix products with packed weights: `x @ weight.T`, for any number of rows, with the same bits for each row however
many there are and whatever computes it.

An integer product sums a chunk of inputs (those that share both scales) exactly, and then, for all weights of a row in
the order of the inputs, with fused multiply-adds:

- weight groups at least as large as activation groups: `p = sum(float(chunk) * activation_scale)`, then
  `out = p * weight_scale + out`, and with minima `out = x_sum * min + out`, where `x_sum` is the sum of
  `float(code_sum) * activation_scale` over the group;
- otherwise: `p = sum(float(chunk) * weight_scale)` and with minima `sum(code_sum * min)`, each chunk's after its
  product, then `out = p * activation_scale + out`.

A weight with factors has integer scales, so all inputs that share a factor (and a scale of the activation) are summed
exactly: `out = (float(sum(chunk * weight_scale)) * activation_scale) * factor + out`.

A product with a float weight is one chain of fused multiply-adds in the order of the inputs; a bfloat16 weight takes
activations rounded to bfloat16. Where codes meet float activations the chain runs over `x * code` and begins anew with
each group: `out = scale * chain + (min * x_sum + out)`, where `min` is `-8 * scale` for codes that count from 8.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch

from ramify.errors import ConfigError
from ramify.kernels.blocks import PANEL
from ramify.kernels.native import extension
from ramify.kernels.packed import (
    PackedMatrix,
    dequantised,
    group_values,
    integer_codes,
    pack_float,
    pack_int,
    slices,
)
from ramify.kernels.quantise import reference_quantise

__all__ = ["PackedMatrix", "linear", "pack_float", "pack_int", "reference_linear", "reference_rows", "rows"]


_LEAST_ROWS = 16
"""Fewer float rows are padded in torch, so that every product takes one path and a row keeps its bits."""

_AT_ONCE, _ROWS_AT_ONCE = 1 << 15, 32
"""Values, and rows of them, of an integer product in torch that are computed together."""

_BELOW_FLOAT32 = (1 << 29) - 1
"""The bits of a float64 that float32 does not have."""

_HALF_WAY = 1 << 28


def linear(
    x: torch.Tensor,
    weight: PackedMatrix,
    bias: torch.Tensor | None = None,
    *,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`x @ weight.T + bias + residual`.

    Args:
        x: [M, K] float32, contiguous.
        weight: [N, K].
        bias: [N] float32.
        residual: [M, N] float32, contiguous.
        out: [M, N] float32, contiguous, to be written; may be `residual`.

    Returns:
        [M, N] float32: `out`, if given.

    Raises:
        ConfigError: shapes or types that do not fit together.
    """
    count = _check(x, weight, bias, residual, out)
    module = extension()
    if module is None:
        result = reference_linear(x, weight, bias, residual=residual)
        return result if out is None else out.copy_(result)
    if out is None:
        out = torch.empty(count, weight.rows)
    multiply = module.linear_int if weight.activation_group else _multiply_floats(module, weight)
    multiply(
        weight.native,
        x.data_ptr(),
        count,
        0 if bias is None else bias.data_ptr(),
        0 if residual is None else residual.data_ptr(),
        out.data_ptr(),
    )
    return out


def rows(weight: PackedMatrix, ids: torch.Tensor) -> torch.Tensor:
    """Rows of a packed matrix as floats, as an embedding that is tied to the head needs them.

    Args:
        weight: [N, K].
        ids: [T] int64 in 0..N - 1.

    Returns:
        [T, K] float32.
    """
    module = extension()
    if module is None:
        return reference_rows(weight, ids)
    if ids.dtype != torch.int64 or ids.ndim != 1 or not ids.is_contiguous():
        raise ConfigError(f"ids {tuple(ids.shape)} of {ids.dtype}: give a contiguous [T] of int64")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < weight.rows:
        raise ConfigError(f"ids from {int(ids.min())} to {int(ids.max())}: the weight has rows 0 to {weight.rows - 1}")
    out = torch.empty(len(ids), weight.columns)
    gather = module.gather_int if weight.is_integer else module.gather_float
    gather(weight.native, ids.data_ptr(), len(ids), out.data_ptr())
    return out


def reference_linear(
    x: torch.Tensor, weight: PackedMatrix, bias: torch.Tensor | None = None, *, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """`linear` in torch. Integer kinds give the same bits as the kernels; float kinds those of torch."""
    if weight.activation_group:
        out = _integer_linear(x, weight)
    else:
        rounded = x.bfloat16().float() if weight.kind == "bfloat16" else x
        padded = torch.nn.functional.pad(rounded, (0, 0, 0, max(0, _LEAST_ROWS - len(x))))
        out = (padded @ dequantised(weight).T)[: len(x)]
    out = out if bias is None else out + bias
    return out if residual is None else out + residual


def reference_rows(weight: PackedMatrix, ids: torch.Tensor) -> torch.Tensor:
    """`rows` in torch."""
    blocks, lanes = ids // 16, ids % 16
    if not weight.is_integer:
        return weight.tensors["weight"][blocks, :, lanes].flatten(1)[:, : weight.columns].float()
    return dequantised(weight)[ids]


def _integer_linear(x: torch.Tensor, weight: PackedMatrix) -> torch.Tensor:
    """A part of the outputs and of the rows at a time: what is computed for it stays in the caches."""
    outputs = _AT_ONCE // min(max(len(x), 1), _ROWS_AT_ONCE) // PANEL * PANEL
    parts = [
        torch.cat([_products(some, part) for some in torch.split(x, _ROWS_AT_ONCE)]) for part in slices(weight, outputs)
    ]
    return torch.cat(parts, dim=1)[:, : weight.rows]


def _products(x: torch.Tensor, weight: PackedMatrix) -> torch.Tensor:
    group, activation_group, columns = weight.group_size, weight.activation_group, weight.padded_columns
    chunk = min(group, activation_group)
    codes, x_scales = reference_quantise(torch.nn.functional.pad(x, (0, columns - x.shape[1])), activation_group)
    chunks = codes.float().view(x.shape[0], -1, chunk).transpose(0, 1)  # [chunks, M, chunk]
    weights = integer_codes(weight).float().view(-1, columns // chunk, chunk).permute(1, 2, 0)  # [chunks, chunk, N]
    products, sums = chunks @ weights, chunks.sum(dim=2, keepdim=True)  # below 2^24, so exact
    w_scales = group_values(weight, "scales").T  # [G, N]
    if "factors" in weight.tensors:
        return _factored(products, w_scales, x_scales, group_values(weight, "factors"))
    mins = group_values(weight, "mins").T if "mins" in weight.tensors else None
    x_scales = x_scales.T.unsqueeze(2)  # [activation groups, M, 1]
    out = torch.zeros(x.shape[0], weights.shape[2])
    chunks_together = max(group, activation_group) // chunk
    for g, begin in enumerate(range(0, len(products), chunks_together)):
        together = range(begin, begin + chunks_together)
        if group >= activation_group:
            out = _fma(_weighted(products, x_scales, together), w_scales[g], out)
            if mins is not None:
                out = _fma(_weighted(sums, x_scales, together), mins[g], out)
        else:
            total = torch.zeros_like(out)
            for c in together:
                total = _fma(products[c], w_scales[c], total)
                total = total if mins is None else _fma(sums[c], mins[c], total)
            out = _fma(total, x_scales[g], out)
    return out


def _factored(
    products: torch.Tensor, w_scales: torch.Tensor, x_scales: torch.Tensor, factors: torch.Tensor
) -> torch.Tensor:
    """Of products [chunks, M, N] with integer scales [chunks, N], and numbers of groups: [M, A] and [N, A]."""
    out = torch.zeros(products.shape[1:])
    chunks_together = len(products) // factors.shape[1]
    for group in range(factors.shape[1]):
        total = torch.zeros_like(out, dtype=torch.float64)  # holds every such integer
        for chunk in range(group * chunks_together, (group + 1) * chunks_together):
            total += products[chunk].double() * w_scales[chunk].double()
        out = _fma(total.float() * x_scales[:, group, None], factors[:, group], out)
    return out


def _weighted(parts: torch.Tensor, scales: torch.Tensor, chosen: range) -> torch.Tensor:
    total = torch.zeros_like(parts[0])
    for chunk in chosen:
        total = _fma(parts[chunk], scales[chunk], total)
    return total


def _fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """`a * b + c`, rounded once. The product is exact in float64. Where the sum, rounded there, lies half-way between
    two floats, or below the normal ones, it is rounded to odd first, so that rounding it to float32 is as if of the
    exact sum."""
    product = a.double() * b.double()
    total = product + c
    half_way = (total.view(torch.int64) & _BELOW_FLOAT32) == _HALF_WAY
    doubtful = half_way | ((total.abs() < torch.finfo(torch.float32).tiny) & (total != 0))
    where = doubtful.nonzero(as_tuple=True)
    if len(where[0]):
        total[where] = _rounded_to_odd(total[where], product[where], c[where].double())
    return total.float()


def _rounded_to_odd(total: torch.Tensor, product: torch.Tensor, addend: torch.Tensor) -> torch.Tensor:
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.view(torch.int64)
    toward = torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where((error.abs() > 0) & ((bits & 1) == 0), bits + toward, bits).view(torch.float64)


def _check(
    x: torch.Tensor,
    weight: PackedMatrix,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    out: torch.Tensor | None,
) -> int:
    count = len(x)
    if not (
        _is_plain(x, (count, weight.columns))
        and (bias is None or _is_plain(bias, (weight.rows,)))
        and (residual is None or _is_plain(residual, (count, weight.rows)))
        and (out is None or _is_plain(out, (count, weight.rows)))
    ):
        shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in (x, bias, residual, out) if t is not None)
        raise ConfigError(
            f"linear of {shapes} with a weight [{weight.rows}, {weight.columns}]: give contiguous float32 x [M, K], "
            "bias [N], residual and out [M, N]"
        )
    return count


def _multiply_floats(module: ModuleType, weight: PackedMatrix) -> Callable[..., None]:
    multiply: Callable[..., None] = module.linear_coded if weight.is_integer else module.linear_float
    return multiply


def _is_plain(tensor: torch.Tensor, shape: tuple[int, ...]) -> bool:
    return tensor.shape == shape and tensor.dtype == torch.float32 and tensor.is_contiguous()
