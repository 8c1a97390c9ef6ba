"""Self-attention of one layer: projections, the heads' preparation and cache write, paged attention."""

from __future__ import annotations

import torch

from ramify.kernels.attention import paged_attention
from ramify.kernels.rotary import Heads, place_heads
from ramify.kv.cache import KVCache
from ramify.layers.inputs import BatchInputs
from ramify.layers.linear import Projection


class Attention:
    """Grouped-query attention (arXiv:2305.13245).

    Args:
        qkv: query, key and value projections in one product.
        output: output projection.
        heads: their shape and norms.
        layer: index of the layer in the cache.
        window: sliding window in tokens, or None.
    """

    def __init__(self, qkv: Projection, output: Projection, heads: Heads, layer: int, window: int | None) -> None:
        self.qkv = qkv
        self.output = output
        self.heads = heads
        self.scale = heads.head_dim**-0.5
        self.layer = layer
        self.window = window

    def __call__(
        self, x: torch.Tensor, inputs: BatchInputs, rotary: tuple[torch.Tensor, torch.Tensor], cache: KVCache
    ) -> torch.Tensor:
        """[T, hidden] -> [T, hidden]; writes this batch's keys and values into the cache."""
        layer = cache.layers[self.layer]
        query = place_heads(self.qkv(x), self.heads, rotary, inputs.slots, layer)
        attended = paged_attention(query, layer, inputs.attention, self.scale, self.window)
        return self.output(attended.flatten(1))
