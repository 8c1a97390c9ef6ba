"""What happens to queries, keys and values between their projection and the attention, in one pass.

Norms of heads (Qwen3), rotary positions in halves (arXiv:2104.09864), and the write of keys and values into the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ramify.kernels.kv_layer import KVLayer, reference_store_kv
from ramify.kernels.native import extension, native
from ramify.kernels.tensors import address

MAX_HEAD_DIM = 1024
"""Elements of a head that the native operator takes."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of a layer.

    Attributes:
        query_heads, kv_heads, head_dim: their numbers and their size; even, at most `MAX_HEAD_DIM`.
        query_norm, key_norm: weights [head_dim] of the norms over a head, or None.
        eps: of both norms.
    """

    query_heads: int
    kv_heads: int
    head_dim: int
    query_norm: torch.Tensor | None = None
    key_norm: torch.Tensor | None = None
    eps: float = 0.0

    @property
    def width(self) -> int:
        """Columns of the fused projection."""
        return (self.query_heads + 2 * self.kv_heads) * self.head_dim


def place_heads(
    qkv: torch.Tensor,
    heads: Heads,
    rotary: tuple[torch.Tensor, torch.Tensor],
    slots: torch.Tensor,
    layer: KVLayer,
) -> torch.Tensor:
    """Norm and rotate the heads of queries and keys; write keys and values into the cache.

    Args:
        qkv: [T, heads.width]: queries, keys, values. Float32 on the CPU.
        heads: their shape and norms.
        rotary: cosines and sines of the rows' positions, [T, head_dim / 2] each, like `qkv`.
        slots: [T] int64, where the rows go in the cache (block * block_size + offset).
        layer: its cache.

    Returns:
        The queries, [T, query_heads, head_dim] like `qkv`.
    """
    if extension() is None or qkv.is_cuda:
        return reference_place_heads(qkv, heads, rotary, slots, layer)
    if qkv.shape[1] != heads.width:
        raise TypeError(f"rows of {heads.width} are needed, not of {qkv.shape[1]}")
    queries = torch.empty(len(qkv), heads.query_heads, heads.head_dim)
    native().place_heads(
        address(qkv),
        address(heads.query_norm),
        address(heads.key_norm),
        heads.eps,
        address(rotary[0]),
        address(rotary[1]),
        address(slots, torch.int64),
        len(qkv),
        heads.query_heads,
        heads.kv_heads,
        heads.head_dim,
        layer.native_arguments(),
        queries.data_ptr(),
    )
    return queries


def reference_place_heads(
    qkv: torch.Tensor,
    heads: Heads,
    rotary: tuple[torch.Tensor, torch.Tensor],
    slots: torch.Tensor,
    layer: KVLayer,
) -> torch.Tensor:
    """The same in torch."""
    sizes = [heads.query_heads, heads.kv_heads, heads.kv_heads]
    query, key, value = torch.split(qkv.view(len(qkv), -1, heads.head_dim), sizes, dim=1)
    query = rotate(_normed(query, heads.query_norm, heads.eps), *rotary)
    key = rotate(_normed(key, heads.key_norm, heads.eps), *rotary)
    reference_store_kv(layer, key, value, slots)
    return query


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate [T, heads, head_dim] by [T, head_dim / 2]; dimension i turns together with i + head_dim / 2."""
    first, second = x.chunk(2, dim=-1)
    cosines, sines = cosines.unsqueeze(1), sines.unsqueeze(1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)


def _normed(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    return x if weight is None else torch.nn.functional.rms_norm(x, weight.shape, weight, eps)
