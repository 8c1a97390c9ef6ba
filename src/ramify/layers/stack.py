"""The layers of a decoder in one native call.

It runs the operators that `DecoderLayer` calls one by one, in the same order and with the same bits; what it saves is
the way back to Python between them, which at one row costs as much as a small operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ramify.kernels.native import extension, native
from ramify.kernels.tensors import address
from ramify.kv.cache import KVCache
from ramify.layers.decoder_layer import DecoderLayer
from ramify.layers.inputs import BatchInputs
from ramify.layers.linear import PackedLinear, Projection


class NativeStack:
    """All layers of a model whose weights are packed for the native kernels.

    Args:
        layers: from the bottom up; kept, since the native side only holds addresses.
    """

    def __init__(self, layers: Sequence[DecoderLayer]) -> None:
        self._layers = layers
        heads = layers[0].attention.heads
        scale, eps = layers[0].attention.scale, layers[0].attention_norm.eps
        self._stack = native().DecoderStack(heads.query_heads, heads.kv_heads, heads.head_dim, scale, eps)
        self._cache: KVCache | None = None
        for layer in layers:
            heads = layer.attention.heads
            self._stack.add_layer(
                address(layer.attention_norm.weight),
                _projection(layer.attention.qkv),
                address(heads.query_norm),
                address(heads.key_norm),
                _projection(layer.attention.output),
                address(layer.mlp_norm.weight),
                _projection(layer.mlp.gate_up),
                _projection(layer.mlp.down),
                layer.attention.window or 0,
            )

    def __call__(
        self, x: torch.Tensor, inputs: BatchInputs, rotary: tuple[torch.Tensor, torch.Tensor], cache: KVCache
    ) -> torch.Tensor:
        """[T, hidden] in front of the first layer, changed in place -> the same behind the last; writes the cache."""
        if cache is not self._cache:
            self._stack.set_cache([layer.native_arguments() for layer in cache.layers])
            self._cache = cache
        cosines, sines = rotary
        slots = address(inputs.slots, torch.int64)
        self._stack.run(inputs.attention.native, address(x), len(x), address(cosines), address(sines), slots)
        return x


def native_stack(layers: Sequence[DecoderLayer]) -> NativeStack | None:
    """The layers in one native call, if all their weights are packed and the native operators are there."""
    packed = all(isinstance(each, PackedLinear) for layer in layers for each in layer.projections)
    return NativeStack(layers) if layers and packed and extension() is not None else None


def _projection(projection: Projection) -> Any:
    assert isinstance(projection, PackedLinear)
    order = projection.permutation
    return native().Projection(projection.weight.native, address(projection.bias), address(order, torch.int64))
