"""From a checkpoint to packed weights, a layer at a time: rounded to a format, or from the codes that it stores.

With texts to calibrate on, each layer runs them in float32; what meets its products chooses the grouping, the scales
and the rounding. Folded channel scales leave the float model the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ramify.errors import CheckpointError
from ramify.kernels.blocks import BLOCK
from ramify.kernels.packed import PackedMatrix, dequantised, pack_float
from ramify.layers.rotary import RotaryTable
from ramify.models.checkpoint import Checkpoint
from ramify.models.config import ModelConfig
from ramify.models.float_layer import FloatLayer, LayerInputs, read_layer, run_layer
from ramify.models.products import EMBEDDING, HEAD, PERMUTATION, Product, layer_norms, layer_products
from ramify.models.reward_head import VALUE_HEAD
from ramify.quantization.channels import choose_channels, round_activations
from ramify.quantization.compensation import second_moments
from ramify.quantization.formats import IntegerFormat, WeightFormat, pack_weight
from ramify.quantization.packed_file import PackedModel
from ramify.quantization.weight import QuantisedWeight

_SAMPLES = 512
"""Inputs of a product on which its grouping is tried."""
_ROWS_TOLD = 512
"""Rows of a matrix that its error is worked out on; the first ones, a multiple of the kernels' blocks."""
_BARE_PREFIXES = ("embed_tokens.", "layers.", "norm.")
Progress = Callable[[int, int], None]
"""Takes (layers done, layers in all)."""


def decoder_prefix(checkpoint: Checkpoint) -> str:
    """Before the names of the decoder's tensors; models without a head are mostly saved without it."""
    return "" if "embed_tokens.weight" in checkpoint else "model."


def has_codes(config: ModelConfig, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint stores products as codes and scales."""
    if config.quantization is None:
        return False
    prefix = f"{decoder_prefix(checkpoint)}layers."
    return any(
        checkpoint.quantised(name, (rows, product.columns)) is not None
        for index in range(config.num_layers)  # the first layers may stay floats
        for product in layer_products(config, f"{prefix}{index}.")
        for name, rows in product.names("weight")
    )


def pack_model(
    config: ModelConfig,
    checkpoint: Checkpoint,
    weight_format: WeightFormat | None,
    dtype: torch.dtype,
    texts: Sequence[Sequence[int]] = (),
    progress: Progress = lambda done, total: None,
) -> PackedModel:
    """Pack the weights of a model.

    Args:
        config, checkpoint: the model.
        weight_format: what to make of it. None takes the stored codes as they are; with a format, stored codes of its
            number of bits are kept, and others rounded anew.
        dtype: of products that are neither stored as codes nor rounded: float32 or bfloat16.
        texts: token ids to calibrate on; none for scales by the error of the weights alone.

    Raises:
        CheckpointError: a tensor is missing, misshapen, or has values that are not finite.
    """
    packer = _Packer(config, checkpoint, weight_format, dtype, decoder_prefix(checkpoint))
    hidden = packer.embedding(texts)
    rotary = _rotary(config, max(map(len, texts), default=1))
    for index in range(config.num_layers):
        progress(index, config.num_layers + 1)
        hidden = packer.layer(index, hidden, rotary)
    progress(config.num_layers, config.num_layers + 1)
    packer.top(hidden)
    progress(config.num_layers + 1, config.num_layers + 1)
    checkpoint.check_all_used((packer.prefix,) if packer.prefix else _BARE_PREFIXES)
    spec = weight_format.spec if weight_format is not None else ""
    return PackedModel(spec, packer.matrices, packer.vectors, {"products": packer.report, "calibrated": bool(texts)})


@dataclass(slots=True)
class _Packer:
    """Packs one model. The products' errors are squared, in parts of the square of the float output if calibrated, else
    of the float weight."""

    config: ModelConfig
    checkpoint: Checkpoint
    format: WeightFormat | None
    dtype: torch.dtype
    prefix: str
    matrices: dict[str, PackedMatrix] = field(default_factory=dict)
    vectors: dict[str, torch.Tensor] = field(default_factory=dict)
    report: list[dict[str, Any]] = field(default_factory=list)

    def embedding(self, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The texts' embeddings, float32 [length, hidden] each."""
        if not texts:
            return []
        table = self._floats(f"{self.prefix}{EMBEDDING}.weight", self.config.vocab_size, self.config.hidden_size)
        return [table[torch.tensor(text)].float() for text in texts]

    def layer(self, index: int, hidden: list[torch.Tensor], rotary: RotaryTable) -> list[torch.Tensor]:
        """Pack a layer; takes and gives the texts in front of it and behind it."""
        prefix = f"{self.prefix}layers.{index}."
        if not hidden and self.config.quantization is not None:
            self._stored_layer(prefix)
            return []
        layer = read_layer(self.config, self.checkpoint, prefix)
        ran: LayerInputs | None = None
        channels: dict[str, bool] = {}
        if hidden:
            ran = run_layer(self.config, layer, prefix, self.config.windows[index], hidden, rotary)
            channels = self._fold_channels(layer, prefix, ran)
        for product in layer.products:
            inputs = None if ran is None else ran.inputs[product.name]
            self._rounded(product.name, layer.weights[product.name], inputs, channels.get(product.name, False))
        self.vectors |= layer.norms
        self.vectors |= {f"{name}.bias": bias for name, bias in layer.biases.items()}
        return [] if ran is None else ran.hidden

    def top(self, hidden: list[torch.Tensor]) -> None:
        """The last norm, the vocabulary's matrices, and whatever other head there is."""
        config, size = self.config, self.config.hidden_size
        norm = self._floats(f"{self.prefix}norm.weight", size).float()
        self.vectors[f"{self.prefix}norm.weight"] = norm
        own_head = config.head == "vocabulary" and (
            not config.tie_word_embeddings or f"{HEAD}.weight" in self.checkpoint
        )
        moments = None
        if hidden and config.head == "vocabulary":
            moments = torch.nn.functional.rms_norm(torch.cat(hidden), norm.shape, norm, config.rms_norm_eps)
            moments = moments.square().mean(0)
        self._vocabulary(f"{self.prefix}{EMBEDDING}", None if own_head else moments)
        if own_head:
            self._vocabulary(HEAD, moments)
        if config.head != "vocabulary":
            self._other_head()

    def _vocabulary(self, name: str, moments: torch.Tensor | None) -> None:
        """The embedding or the output embedding, in the format of heads."""
        rows, columns = self.config.vocab_size, self.config.hidden_size
        stored = self.checkpoint.quantised(f"{name}.weight", (rows, columns))
        if stored is not None and stored.permutation is None and self._keeps(stored):
            self._keep(name, stored)
            return
        floats = self._floats(f"{name}.weight", rows, columns)
        packing = self.format.head if self.format is not None else None
        packed = pack_float(floats.to(self.dtype)) if packing is None else packing.pack(floats.float(), moments)
        self._add(name, packed, floats, None, False)

    def _other_head(self) -> None:
        """Heads over labels stay float32, under their own names."""
        self.checkpoint.set_aside(HEAD + ".")
        hidden, count = self.config.hidden_size, len(self.config.labels)
        for name in sorted(self.checkpoint.names()):
            if name.startswith(("score.", f"{VALUE_HEAD}.")):
                rows = hidden if ".0." in name else count
                shape = (rows,) if name.endswith(".bias") else (rows, hidden)
                self.vectors[name] = self._floats(name, *shape).float()

    def _stored_layer(self, prefix: str) -> None:
        for product in layer_products(self.config, prefix):
            parts = [self.checkpoint.quantised(name, (rows, product.columns)) for name, rows in product.names("weight")]
            given = [part for part in parts if part is not None and self._keeps(part)]
            joined = QuantisedWeight.joined(given) if len(given) == len(parts) else None
            if joined is not None:
                self._keep(product.name, joined)
            else:
                floats = [self._floats(name, rows, product.columns) for name, rows in product.names("weight")]
                self._rounded(product.name, torch.cat([part.float() for part in floats]), None, False)
            if product.has_bias:
                biases = [self._floats(name, rows) for name, rows in product.names("bias")]
                self.vectors[f"{product.name}.bias"] = torch.cat([bias.float() for bias in biases])
        for name, size in layer_norms(self.config, prefix).items():
            self.vectors[name] = self._floats(name, size).float()

    def _keeps(self, stored: QuantisedWeight) -> bool:
        """Whether stored codes are used as they are."""
        return self.format is None or getattr(self.format, "bits", 0) == stored.bits

    def _keep(self, name: str, stored: QuantisedWeight) -> None:
        activations = self.checkpoint.activations if self.format is None else self.format.activations
        packed = pack_weight(stored, activations)
        if stored.permutation is not None:
            self.vectors[f"{name}.{PERMUTATION}"] = stored.permutation
        self.matrices[name] = packed
        self.report.append({"name": name, "kind": packed.kind, "bytes": packed.nbytes})

    def _rounded(self, name: str, weight: torch.Tensor, inputs: torch.Tensor | None, own_channels: bool) -> None:
        """Pack a float product, float32 [rows, columns]."""
        _check_finite(self.checkpoint, name, weight)
        moments = None if inputs is None else second_moments(inputs)
        packed = pack_float(weight.to(self.dtype)) if self.format is None else self.format.pack(weight, moments)
        self._add(name, packed, weight, inputs, own_channels)

    def _add(
        self, name: str, packed: PackedMatrix, weight: torch.Tensor, inputs: torch.Tensor | None, own_channels: bool
    ) -> None:
        self.matrices[name] = packed
        entry: dict[str, Any] = {"name": name, "kind": packed.kind, "bytes": packed.nbytes}
        part = _first_rows(packed)
        if inputs is not None:
            entry |= {
                "error": _output_error(part, weight[: part.rows], _sample(inputs)),
                "input_channels": own_channels,
            }
        else:
            entry["weight_error"] = _relative(dequantised(part) - weight[: part.rows].float(), weight[: part.rows])
        self.report.append(entry)

    def _fold_channels(self, layer: FloatLayer, prefix: str, ran: LayerInputs) -> dict[str, bool]:
        """Give input channels scales of their own where that lessens a product's error; says which have them.

        The input of the product behind the attention is a sum over positions of values that groups of heads share; it
        has even channels in practice and stays as it is.
        """
        products = layer.products
        up = slice(self.config.intermediate_size, None)
        chosen = {}
        scales = self._channels(layer, products.down, ran)
        chosen[products.down.name] = scales is not None
        if scales is not None:
            layer.weights[products.gate_up.name][up] /= scales[:, None]
            if products.gate_up.has_bias:
                layer.biases[products.gate_up.name][up] /= scales
        for product, norm in ((products.qkv, "input_layernorm"), (products.gate_up, "post_attention_layernorm")):
            scales = self._channels(layer, product, ran)
            chosen[product.name] = scales is not None
            if scales is not None:
                layer.norms[f"{prefix}{norm}.weight"] /= scales
        return chosen

    def _channels(self, layer: FloatLayer, product: Product, ran: LayerInputs) -> torch.Tensor | None:
        """Scales of a product's input channels, already multiplied into its weight and divided out of its inputs."""
        if not isinstance(self.format, IntegerFormat) or product.columns % self.format.group_size:
            return None
        weight, inputs = layer.weights[product.name], ran.inputs[product.name]
        rounding, together = self.format.rounding(product.columns), self.format.activation_group(product.columns)
        choice = choose_channels(weight, _sample(inputs), rounding, together)
        if choice.scales is not None:
            layer.weights[product.name] = weight * choice.scales
            ran.inputs[product.name] = inputs / choice.scales
        return choice.scales

    def _floats(self, name: str, *shape: int) -> torch.Tensor:
        floats = self.checkpoint.tensor(name, shape)
        _check_finite(self.checkpoint, name, floats)
        return floats


def _rotary(config: ModelConfig, length: int) -> RotaryTable:
    rope = config.rope
    return RotaryTable(rope.inverse_frequencies(config.head_dim), rope.attention_scaling, length, torch.device("cpu"))


def _sample(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs spread evenly over all."""
    if len(inputs) <= _SAMPLES:
        return inputs
    return inputs[torch.linspace(0, len(inputs) - 1, _SAMPLES).long()]


def _check_finite(checkpoint: Checkpoint, name: str, values: torch.Tensor) -> None:
    if not bool(torch.isfinite(values.sum(dtype=torch.float64))):
        raise CheckpointError(f"{name} in {checkpoint.folder} has values that are not finite: fetch the file again")


def _first_rows(packed: PackedMatrix) -> PackedMatrix:
    """A part that is large enough to tell the error, of a matrix as large as a vocabulary's."""
    if packed.rows <= _ROWS_TOLD:
        return packed
    buffers = {name: buffer[: _ROWS_TOLD // BLOCK] for name, buffer in packed.tensors.items()}
    return replace(packed, rows=_ROWS_TOLD, tensors=buffers)


def _output_error(packed: PackedMatrix, weight: torch.Tensor, inputs: torch.Tensor) -> float:
    given = round_activations(inputs, packed.activation_group) if packed.activation_group else inputs
    wanted = inputs @ weight.t()
    return _relative(given @ dequantised(packed).t() - wanted, wanted)


def _relative(difference: torch.Tensor, whole: torch.Tensor) -> float:
    size = float(whole.float().square().sum())
    return float(difference.square().sum()) / size if size else 0.0
