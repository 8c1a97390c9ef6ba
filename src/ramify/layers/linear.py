"""Linear maps. A weight format is another class with this call."""

from __future__ import annotations

import torch
from torch.nn import functional

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
