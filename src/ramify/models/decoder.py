"""The generic decoder of every family: pre-norm blocks of attention and a gated MLP over a flat ragged batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from ramify.errors import CheckpointError
from ramify.kernels.packed import PackedMatrix, pack_float
from ramify.kernels.rotary import Heads
from ramify.kv.cache import KVCache
from ramify.layers.attention import Attention
from ramify.layers.decoder_layer import DecoderLayer
from ramify.layers.embedding import Embedding
from ramify.layers.inputs import BatchInputs
from ramify.layers.linear import Linear, PackedLinear, Projection, packs, projection
from ramify.layers.mlp import GatedMLP
from ramify.layers.norm import RMSNorm
from ramify.layers.rotary import RotaryTable
from ramify.layers.stack import native_stack
from ramify.models.checkpoint import Checkpoint
from ramify.models.config import ModelConfig
from ramify.models.products import EMBEDDING, HEAD, PERMUTATION, Product
from ramify.models.reward_head import VALUE_HEAD

_BARE_PREFIXES = ("embed_tokens.", "layers.", "norm.")
Head = Callable[[torch.Tensor], torch.Tensor]
"""[rows, hidden], behind the last norm, to [rows, columns]."""


@dataclass(frozen=True, slots=True)
class LabelHead:
    """Labels of rows. Each row is summed up by itself, so that its scores do not depend on how many share the batch.

    Attributes:
        weight: [labels, hidden].
        bias: [labels] or None.
        before: a layer in front, with its ReLU (Qwen2.5-Math-PRM has one).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    before: Projection | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] -> [rows, labels]."""
        if self.before is not None:
            x = functional.relu(self.before(x))
        rows = x.float()
        scores = torch.stack([(rows * label.float()).sum(-1) for label in self.weight], dim=-1)
        return scores if self.bias is None else scores + self.bias.float()


class Decoder:
    """A decoder-only model: of language, or with labels on top.

    Args:
        config: its shape.
        embedding: [vocabulary] -> hidden.
        layers: from the bottom up.
        norm: the last norm.
        head: hidden -> vocabulary (the embedding's weight if tied), or -> labels.
        rotary: positions up to the context's end.
    """

    def __init__(
        self,
        config: ModelConfig,
        embedding: Embedding,
        layers: list[DecoderLayer],
        norm: RMSNorm,
        head: Head,
        rotary: RotaryTable,
    ) -> None:
        self.config = config
        self.embedding = embedding
        self.layers = layers
        self._stack = native_stack(layers)
        self.norm = norm
        self.head = head
        self.rotary = rotary

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights (as they are in the checkpoint) and of the cache."""
        return self.embedding.dtype

    def forward(self, inputs: BatchInputs, cache: KVCache) -> torch.Tensor:
        """Run a batch; writes its keys and values into `cache`. Returns [T, hidden], before the last norm."""
        x = self.embedding(inputs.token_ids)
        rotary = self.rotary.at(inputs.positions, x.dtype)
        if self._stack is not None:
            return self._stack(x, inputs, rotary, cache)
        update: torch.Tensor | None = None
        for layer in self.layers:
            x, update = layer(x, update, inputs, rotary, cache)
        return x if update is None else x + update

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """[R, hidden] from `forward` -> the same behind the last norm."""
        return self.norm(hidden)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[R, hidden] from `forward` -> [R, vocabulary or labels] float32."""
        return self.head(self.norm(hidden)).float()


def load_decoder(
    config: ModelConfig, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device, max_model_len: int
) -> Decoder:
    """Build the decoder from a checkpoint.

    Raises:
        CheckpointError: a tensor is missing or misshapen.
    """
    loader = _Loader(config, checkpoint, dtype, device)
    embedding = loader.embedding()
    head = loader.head(embedding)
    rope = config.rope
    table = RotaryTable(rope.inverse_frequencies(config.head_dim), rope.attention_scaling, max_model_len, device)
    layers = [loader.layer(index) for index in range(config.num_layers)]
    norm = loader.norm(f"{loader.prefix}norm.weight", config.hidden_size)
    checkpoint.check_all_used((loader.prefix,) if loader.prefix else _BARE_PREFIXES)
    return Decoder(config, embedding, layers, norm, head, table)


def _no_head(x: torch.Tensor) -> torch.Tensor:
    raise AssertionError("a model without a head was asked for logits")


@dataclass(frozen=True, slots=True)
class _Loader:
    config: ModelConfig
    checkpoint: Checkpoint
    dtype: torch.dtype
    device: torch.device

    @property
    def prefix(self) -> str:
        """Before the names of the decoder's tensors; models without a head are mostly saved without it."""
        return "" if "embed_tokens.weight" in self.checkpoint else "model."

    def tensor(self, name: str, *shape: int) -> torch.Tensor:
        return self.checkpoint.tensor(name, shape, self.dtype, self.device)

    def norm(self, name: str, size: int) -> RMSNorm:
        return RMSNorm(self.norm_weight(name, size), self.config.rms_norm_eps)

    def norm_weight(self, name: str, size: int) -> torch.Tensor:
        weight = self.tensor(name, size)
        return weight if weight.is_cuda else weight.float()

    def embedding(self) -> Embedding:
        name = f"{self.prefix}{EMBEDDING}"
        packed = self.checkpoint.packed(name)
        if packed is not None:
            rows, columns = self.config.vocab_size, self.config.hidden_size
            return Embedding(self.packed_linear(name, packed, rows, columns, False).weight, self.dtype)
        table = self.tensor(f"{name}.weight", self.config.vocab_size, self.config.hidden_size)
        shared = self.head_is_tied and packs(self.device)
        return Embedding(pack_float(table), self.dtype) if shared else Embedding(table)

    @property
    def head_is_tied(self) -> bool:
        """Whether the logits come out of the embedding's own weight."""
        tied = self.config.tie_word_embeddings and "lm_head.weight" not in self.checkpoint
        return tied and self.config.head == "vocabulary"

    def fused(
        self, prefix: str, names: tuple[str, ...], widths: tuple[int, ...], inputs: int, bias: bool
    ) -> Projection:
        """Several projections of one input as one product."""
        product = Product(prefix, names, widths, inputs, bias).name
        packed = self.checkpoint.packed(product)
        if packed is not None:
            return self.packed_linear(product, packed, sum(widths), inputs, bias)
        weights = [self.tensor(f"{prefix}{n}.weight", w, inputs) for n, w in zip(names, widths, strict=True)]
        biases = [self.tensor(f"{prefix}{n}.bias", w) for n, w in zip(names, widths, strict=True)] if bias else None
        joined = weights[0] if len(weights) == 1 else torch.cat(weights)
        return projection(joined, None if biases is None else torch.cat(biases))

    def packed_linear(self, name: str, packed: PackedMatrix, outputs: int, inputs: int, bias: bool) -> PackedLinear:
        """A product of a checkpoint in the layout of the kernels."""
        if (packed.rows, packed.columns) != (outputs, inputs):
            raise CheckpointError(
                f"{name} in {self.checkpoint.folder} is [{packed.rows}, {packed.columns}]; "
                f"the config asks for [{outputs}, {inputs}]"
            )
        order = f"{name}.{PERMUTATION}"
        return PackedLinear(
            packed,
            self.checkpoint.tensor(f"{name}.bias", (outputs,), torch.float32) if bias else None,
            self.checkpoint.tensor(order, (inputs,)) if order in self.checkpoint else None,
        )

    def head(self, embedding: Embedding) -> Head:
        """What stands on the last layer."""
        if self.config.head == "none":
            self.checkpoint.set_aside("lm_head.")
            return _no_head
        return self.vocabulary(embedding) if self.config.head == "vocabulary" else self.labels()

    def vocabulary(self, embedding: Embedding) -> Head:
        """Logits of tokens."""
        config = self.config
        if self.head_is_tied:
            table = embedding.table
            return PackedLinear(table) if isinstance(table, PackedMatrix) else Linear(table, pack=False)
        packed = self.checkpoint.packed(HEAD)
        if packed is not None:
            return self.packed_linear(HEAD, packed, config.vocab_size, config.hidden_size, False)
        return projection(self.tensor("lm_head.weight", config.vocab_size, config.hidden_size))

    def labels(self) -> Head:
        """Scores of labels: ``score``, with a layer in front of it if the checkpoint has one, or the value head."""
        hidden, count = self.config.hidden_size, len(self.config.labels)
        self.checkpoint.set_aside("lm_head.")
        name, before = VALUE_HEAD if self.config.head == "value" else "score", None
        if f"{name}.0.weight" in self.checkpoint:
            before = self.fused(name + ".", ("0",), (hidden,), hidden, bias=f"{name}.0.bias" in self.checkpoint)
            name += ".2"
        bias = self.tensor(f"{name}.bias", count) if f"{name}.bias" in self.checkpoint else None
        return LabelHead(self.tensor(f"{name}.weight", count, hidden), bias, before)

    def heads(self, prefix: str) -> Heads:
        """The shape of a layer's heads, and their norms."""
        config = self.config
        size, query, key = config.head_dim, None, None
        if config.qk_norm:
            query = self.norm_weight(f"{prefix}q_norm.weight", size)
            key = self.norm_weight(f"{prefix}k_norm.weight", size)
        return Heads(config.num_heads, config.num_kv_heads, size, query, key, config.rms_norm_eps)

    def layer(self, index: int) -> DecoderLayer:
        config, prefix = self.config, f"{self.prefix}layers.{index}."
        hidden, middle = config.hidden_size, config.intermediate_size
        query, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        attention, mlp = prefix + "self_attn.", prefix + "mlp."
        qkv_names = ("q_proj", "k_proj", "v_proj")
        return DecoderLayer(
            attention_norm=self.norm(prefix + "input_layernorm.weight", hidden),
            attention=Attention(
                qkv=self.fused(attention, qkv_names, (query, kv, kv), hidden, config.qkv_bias),
                output=self.fused(attention, ("o_proj",), (hidden,), query, config.output_bias),
                heads=self.heads(attention),
                layer=index,
                window=config.windows[index],
            ),
            mlp_norm=self.norm(prefix + "post_attention_layernorm.weight", hidden),
            mlp=GatedMLP(
                self.fused(mlp, ("gate_proj", "up_proj"), (middle, middle), hidden, config.mlp_bias),
                self.fused(mlp, ("down_proj",), (hidden,), middle, config.mlp_bias),
            ),
        )
