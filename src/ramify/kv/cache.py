"""The tensors that hold keys and values: per layer [kv_heads, blocks, block_size, head_dim].

Heads come first so that gathering the blocks of a sequence copies whole blocks and lands in the layout that a
batched matrix product reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class KVCache:
    """Keys and values of all layers.

    Args:
        num_layers, num_kv_heads, head_dim: of the model.
        num_blocks: of the pool, the null block included.
        block_size: tokens a block.
        dtype: float32 or bfloat16.
        device: where it lives.
    """

    def __init__(
        self,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_kv_heads, num_blocks, block_size, head_dim)
        self.block_size = block_size
        self.keys = [_zeros(shape, dtype, device) for _ in range(num_layers)]
        self.values = [_zeros(shape, dtype, device) for _ in range(num_layers)]

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
        """Store rows [T, kv_heads, head_dim] at `slots` [T] (block * block_size + offset)."""
        for store, rows in ((self.keys[layer], keys), (self.values[layer], values)):
            store.flatten(1, 2).index_copy_(1, slots, rows.transpose(0, 1))

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, target) each: what a fork does when it first writes into a shared block."""
        source = torch.tensor([pair[0] for pair in pairs], device=self.keys[0].device)
        target = torch.tensor([pair[1] for pair in pairs], device=self.keys[0].device)
        for store in (*self.keys, *self.values):
            store.index_copy_(1, target, store.index_select(1, source))

    def scrub(self, blocks: Sequence[int]) -> None:
        """Zero the blocks of a sequence that failed: a NaN left behind would reach others through masked positions."""
        index = torch.tensor(list(blocks), device=self.keys[0].device, dtype=torch.int64)
        for store in (*self.keys, *self.values):
            store.index_fill_(1, index, 0)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros. On a CPU the pages are the system's own zero page until they are written: a large pool costs nothing."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    if dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, np.float32))
    return torch.from_numpy(np.zeros(shape, np.int16)).view(dtype)
