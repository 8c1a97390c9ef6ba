"""Linear maps. A weight format is another class with this call."""

from __future__ import annotations

import torch
from torch.nn import functional

from ramify.kernels.gemm import linear as multiply
from ramify.kernels.native import extension
from ramify.kernels.packed import PackedMatrix, pack_float

_PACKED_FOR_ROWS = 32
"""Rows that the packed layout is laid out for; any number works, with the same bits."""


class Linear:
    """y = x W^T + b.

    On a CPU with bfloat16 instructions, oneDNN multiplies by a weight in a blocked layout of its own. Packing lays it
    out once instead of in every call: the same bits, sooner (docs/performance.md has the measurement).

    Args:
        weight: [out, in].
        bias: [out] or None.
        pack: keep the weight in the blocked layout where that is possible. A weight that is used elsewhere as well
            (tied embeddings) is better left as it is.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, pack: bool = True) -> None:
        self.bias = bias
        self.packed = pack and _packable(weight)
        self.weight = weight
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PACKED_FOR_ROWS)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, in] -> [rows, out], in the dtype of x."""
        rows = x.to(self.weight.dtype) if not self.packed else x.bfloat16()
        if self.packed:
            product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
            return product.to(x.dtype)
        return functional.linear(rows, self.weight, self.bias).to(x.dtype)


def _packable(weight: torch.Tensor) -> bool:
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        return False
    return bool(torch._C._has_mkldnn) and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear:
    """y = x W^T + b with a weight in the layout of the kernels.

    Args:
        weight: [out, in].
        bias: float32 [out] or None.
        permutation: int64 [in], the input that each column of the weight belongs to; None for the natural order.
    """

    def __init__(
        self, weight: PackedMatrix, bias: torch.Tensor | None = None, permutation: torch.Tensor | None = None
    ) -> None:
        self.weight = weight
        self.bias = bias
        self.permutation = permutation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, in] float32 -> [rows, out] float32."""
        ordered = x if self.permutation is None else x.index_select(1, self.permutation)
        return multiply(ordered.contiguous(), self.weight, self.bias)


Projection = Linear | PackedLinear


def projection(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Projection:
    """y = x W^T + b of a float weight, in the layout of whatever multiplies with it here."""
    if not packs(weight.device):
        return Linear(weight, bias)
    return PackedLinear(pack_float(weight), None if bias is None else bias.float())


def packs(device: torch.device) -> bool:
    """Whether float weights are laid out for the native kernels."""
    return device.type == "cpu" and extension() is not None
