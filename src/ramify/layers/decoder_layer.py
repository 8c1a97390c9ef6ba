"""One layer of a decoder: pre-norm attention and a gated MLP."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ramify.kv.cache import KVCache
from ramify.layers.attention import Attention
from ramify.layers.inputs import BatchInputs
from ramify.layers.linear import Projection
from ramify.layers.mlp import GatedMLP
from ramify.layers.norm import RMSNorm


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    attention_norm: RMSNorm
    attention: Attention
    mlp_norm: RMSNorm
    mlp: GatedMLP

    def __call__(
        self,
        x: torch.Tensor,
        update: torch.Tensor | None,
        inputs: BatchInputs,
        rotary: tuple[torch.Tensor, torch.Tensor],
        cache: KVCache,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[T, hidden] and what is still to be added to it -> the same one layer up.

        Each sum is left to the next norm, which adds and normalises in one pass.
        """
        normed, x = self.attention_norm.add(x, update)
        update = self.attention(normed, inputs, rotary, cache)
        normed, x = self.mlp_norm.add(x, update)
        return x, self.mlp(normed)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """Its matrix products, in the order of a forward pass."""
        return self.attention.qkv, self.attention.output, self.mlp.gate_up, self.mlp.down
