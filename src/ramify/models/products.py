"""The products of a decoder: which weights of a checkpoint are multiplied together, and under which name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ramify.models.config import ModelConfig

EMBEDDING = "embed_tokens"
HEAD = "lm_head"
PERMUTATION = "permutation"
"""Ends the name of the order of a product's inputs, where it has one of its own."""


@dataclass(frozen=True, slots=True)
class Product:
    """Projections of one input as one product.

    Attributes:
        prefix: in front of the names, e.g. "model.layers.0.self_attn.".
        parts: names of the projections, in their order.
        widths: rows of each.
        columns: width of the input.
        has_bias: whether each has a bias.
    """

    prefix: str
    parts: tuple[str, ...]
    widths: tuple[int, ...]
    columns: int
    has_bias: bool = False

    @property
    def name(self) -> str:
        """Of the whole, e.g. "model.layers.0.self_attn.qkv_proj"."""
        if len(self.parts) == 1:
            return self.prefix + self.parts[0]
        stems = [part.removesuffix("_proj") for part in self.parts]
        return self.prefix + ("" if all(len(stem) == 1 for stem in stems) else "_").join(stems) + "_proj"

    def names(self, ending: str) -> list[tuple[str, int]]:
        """Tensors of the parts with their rows, e.g. those that end in "weight"."""
        return [(f"{self.prefix}{part}.{ending}", width) for part, width in zip(self.parts, self.widths, strict=True)]


@dataclass(frozen=True, slots=True)
class LayerProducts:
    """The four products of a layer."""

    qkv: Product
    output: Product
    gate_up: Product
    down: Product

    def __iter__(self) -> Iterator[Product]:
        """In the order of a forward pass."""
        return iter((self.qkv, self.output, self.gate_up, self.down))


def layer_products(config: ModelConfig, prefix: str) -> LayerProducts:
    """The products of the layer whose tensors' names begin with `prefix`, e.g. "model.layers.0."."""
    hidden, middle = config.hidden_size, config.intermediate_size
    query, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    return LayerProducts(
        qkv=Product(attention, ("q_proj", "k_proj", "v_proj"), (query, kv, kv), hidden, config.qkv_bias),
        output=Product(attention, ("o_proj",), (hidden,), query, config.output_bias),
        gate_up=Product(mlp, ("gate_proj", "up_proj"), (middle, middle), hidden, config.mlp_bias),
        down=Product(mlp, ("down_proj",), (hidden,), middle, config.mlp_bias),
    )


def layer_norms(config: ModelConfig, prefix: str) -> dict[str, int]:
    """The norms of a layer and their sizes."""
    norms = {f"{prefix}input_layernorm.weight": config.hidden_size}
    norms[f"{prefix}post_attention_layernorm.weight"] = config.hidden_size
    if config.qk_norm:
        norms |= {f"{prefix}self_attn.{each}_norm.weight": config.head_dim for each in ("q", "k")}
    return norms
