"""Self-attention of one layer: projections, optional head norms, rotary positions, cache write, paged attention."""

from __future__ import annotations

import torch

from ramify.kernels.attention import paged_attention
from ramify.kv.cache import KVCache
from ramify.layers.inputs import BatchInputs
from ramify.layers.linear import Linear
from ramify.layers.norm import RMSNorm
from ramify.layers.rotary import apply_rotary


class Attention:
    """Grouped-query attention (arXiv:2305.13245).

    Args:
        qkv: query, key and value projections in one product.
        output: output projection.
        num_heads, num_kv_heads, head_dim: shapes.
        layer: index of the layer in the cache.
        window: sliding window in tokens, or None.
        query_norm, key_norm: norms over head_dim (Qwen3), or None.
    """

    def __init__(
        self,
        qkv: Linear,
        output: Linear,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        layer: int,
        window: int | None,
        query_norm: RMSNorm | None,
        key_norm: RMSNorm | None,
    ) -> None:
        self.qkv = qkv
        self.output = output
        self.head_dim = head_dim
        self.layer = layer
        self.window = window
        self.query_norm = query_norm
        self.key_norm = key_norm
        self.splits = [num_heads, num_kv_heads, num_kv_heads]

    def __call__(
        self, x: torch.Tensor, inputs: BatchInputs, rotary: tuple[torch.Tensor, torch.Tensor], cache: KVCache
    ) -> torch.Tensor:
        """[T, hidden] -> [T, hidden]; writes this batch's keys and values into the cache."""
        query, key, value = torch.split(self.qkv(x).view(len(x), -1, self.head_dim), self.splits, dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        cache.write(self.layer, key, value, inputs.slots)
        keys, values = cache.keys[self.layer], cache.values[self.layer]
        attended = paged_attention(query, keys, values, inputs.attention, self.head_dim**-0.5, self.window)
        return self.output(attended.flatten(1))
