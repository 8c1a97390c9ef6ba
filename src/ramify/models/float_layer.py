"""One layer of a decoder in plain float32, a layer at a time: what calibration runs text through.

It needs the weights of one layer at once, so a model of any size is calibrated in the memory of a layer and its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from ramify.layers.rotary import RotaryTable
from ramify.models.checkpoint import Checkpoint
from ramify.models.config import ModelConfig
from ramify.models.products import LayerProducts, Product, layer_norms, layer_products


@dataclass(slots=True)
class FloatLayer:
    """The weights of a layer, float32; fused as they are multiplied.

    Attributes:
        products: names and sizes.
        weights: by the products' names, [rows, columns].
        biases: by the products' names.
        norms: by the tensors' names.
    """

    products: LayerProducts
    weights: dict[str, torch.Tensor]
    biases: dict[str, torch.Tensor]
    norms: dict[str, torch.Tensor]

    def multiply(self, product: Product, x: torch.Tensor) -> torch.Tensor:
        """[rows, columns] -> [rows, outputs]."""
        return functional.linear(x, self.weights[product.name], self.biases.get(product.name))


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """What meets each product of a layer, [tokens, columns] by the products' names, and what the layer gives.

    Attributes:
        inputs: by product.
        hidden: one tensor a text, [length, hidden].
    """

    inputs: dict[str, torch.Tensor]
    hidden: list[torch.Tensor]


def read_layer(config: ModelConfig, checkpoint: Checkpoint, prefix: str) -> FloatLayer:
    """The layer whose tensors' names begin with `prefix`, copied out of the file.

    Raises:
        CheckpointError: a tensor is missing or misshapen.
    """
    products = layer_products(config, prefix)
    weights, biases = {}, {}
    for product in products:
        parts = [checkpoint.tensor(name, (rows, product.columns)) for name, rows in product.names("weight")]
        weights[product.name] = torch.cat([part.float() for part in parts])
        if product.has_bias:
            parts = [checkpoint.tensor(name, (rows,)) for name, rows in product.names("bias")]
            biases[product.name] = torch.cat([part.float() for part in parts])
    norms = {
        name: checkpoint.tensor(name, (size,)).to(torch.float32, copy=True)
        for name, size in layer_norms(config, prefix).items()
    }
    return FloatLayer(products, weights, biases, norms)


@torch.inference_mode()
def run_layer(
    config: ModelConfig,
    layer: FloatLayer,
    prefix: str,
    window: int | None,
    hidden: Sequence[torch.Tensor],
    rotary: RotaryTable,
) -> LayerInputs:
    """Run texts through a layer and keep what meets its products.

    Args:
        prefix: of the layer's tensors.
        window: how many latest positions a query sees; None is all.
        hidden: one tensor a text, float32 [length, hidden].
    """
    products = layer.products
    together, lengths = torch.cat(list(hidden)), [len(text) for text in hidden]
    normed = _norm(config, layer, prefix + "input_layernorm.weight", together)
    qkv = layer.multiply(products.qkv, normed)
    attended = torch.cat([_attend(config, layer, prefix, window, text, rotary) for text in torch.split(qkv, lengths)])
    together = together + layer.multiply(products.output, attended)
    middle = _norm(config, layer, prefix + "post_attention_layernorm.weight", together)
    gate, up = layer.multiply(products.gate_up, middle).chunk(2, dim=-1)
    gated = functional.silu(gate) * up
    together = together + layer.multiply(products.down, gated)
    inputs = {products.qkv.name: normed, products.output.name: attended}
    inputs |= {products.gate_up.name: middle, products.down.name: gated}
    return LayerInputs(inputs, list(torch.split(together, lengths)))


def _norm(config: ModelConfig, layer: FloatLayer, name: str, x: torch.Tensor) -> torch.Tensor:
    weight = layer.norms[name]
    return functional.rms_norm(x, weight.shape, weight, config.rms_norm_eps)


def _attend(
    config: ModelConfig, layer: FloatLayer, prefix: str, window: int | None, qkv: torch.Tensor, rotary: RotaryTable
) -> torch.Tensor:
    """Causal attention of one text, [length, heads * head_dim]."""
    heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_dim
    query, key, value = torch.split(qkv.view(len(qkv), -1, size), [heads, kv_heads, kv_heads], dim=1)
    if config.qk_norm:
        query = _norm(config, layer, prefix + "self_attn.q_norm.weight", query)
        key = _norm(config, layer, prefix + "self_attn.k_norm.weight", key)
    cosines, sines = rotary.cosines[: len(qkv), None], rotary.sines[: len(qkv), None]
    query, key = _rotate(query, cosines, sines), _rotate(key, cosines, sines)
    place = torch.arange(len(qkv))
    seen = place[:, None] >= place
    if window is not None:
        seen &= place[:, None] - place < window
    repeats = heads // kv_heads
    attended = functional.scaled_dot_product_attention(
        query.transpose(0, 1),
        key.transpose(0, 1).repeat_interleave(repeats, dim=0),
        value.transpose(0, 1).repeat_interleave(repeats, dim=0),
        attn_mask=seen,
    )
    return attended.transpose(0, 1).flatten(1)


def _rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
