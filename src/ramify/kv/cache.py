"""The tensors that hold keys and values, in blocks; `ramify.kernels.kv_layer` says how they lie.

Heads come first, so that the blocks of one head lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ramify.kernels.kv_layer import KVLayer, store_kv


class KVCache:
    """Keys and values of all layers.

    Args:
        num_layers, num_kv_heads, head_dim: of the model.
        num_blocks: of the pool, the null block included.
        block_size: tokens a block.
        dtype: float32, bfloat16, or int8 (with one float32 scale a token and head for keys, and one for values).
        device: where it lives.

    Attributes:
        layers: the cache of each layer.
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
        def zeros(*shape: int, of: torch.dtype = dtype) -> torch.Tensor:
            return _zeros((num_kv_heads, num_blocks, *shape), of, device)

        def layer() -> KVLayer:
            keys, values = zeros(head_dim, block_size), zeros(block_size, head_dim)
            if dtype != torch.int8:
                return KVLayer(keys, values)
            return KVLayer(keys, values, zeros(block_size, of=torch.float32), zeros(block_size, of=torch.float32))

        self.block_size = block_size
        self.layers = [layer() for _ in range(num_layers)]

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
        """Store rows [T, kv_heads, head_dim] at `slots` [T] (block * block_size + offset)."""
        store_kv(self.layers[layer], keys, values, slots)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, target) each: what a fork does when it first writes into a shared block."""
        device = self.layers[0].keys.device
        source = torch.tensor([pair[0] for pair in pairs], device=device)
        target = torch.tensor([pair[1] for pair in pairs], device=device)
        for tensor in self._tensors():
            tensor.index_copy_(1, target, tensor.index_select(1, source))

    def scrub(self, blocks: Sequence[int]) -> None:
        """Zero the blocks of a sequence that failed: a NaN left behind would reach others through masked positions."""
        index = torch.tensor(list(blocks), device=self.layers[0].keys.device, dtype=torch.int64)
        for tensor in self._tensors():
            tensor.index_fill_(1, index, 0)

    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for layer in self.layers for tensor in layer.tensors]


_AS_NUMPY = {torch.float32: np.float32, torch.bfloat16: np.int16, torch.int8: np.int8}


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros. On a CPU the pages are the system's own zero page until they are written: a large pool costs nothing."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(shape, _AS_NUMPY[dtype])).view(dtype)
