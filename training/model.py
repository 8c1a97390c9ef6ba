"""A small Llama decoder in plain torch whose parameter names are those of transformers' LlamaForCausalLM.

It is leaner than the library's module, which matters at this size, and it has a key-value cache for batched sampling.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of the architecture, named as in config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 512
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def as_dict(self) -> dict[str, int | float]:
        return asdict(self)


@dataclass(slots=True)
class Cache:
    """Keys and values [layers, sequences, kv heads, length, head_dim], filled from the left."""

    keys: Tensor
    values: Tensor
    length: int = 0


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, kv_width = shape.hidden_size, shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Cache | None, layer: int, mask: Tensor | None
    ) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            projection(x).view(batch, length, -1, self.shape.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, *rope), rotate(k, *rope)
        if cache is not None:
            end = cache.length + length
            cache.keys[layer, :, :, cache.length : end] = k
            cache.values[layer, :, :, cache.length : end] = v
            k, v = cache.keys[layer, :, :, :end], cache.values[layer, :, :, :end]
        if mask is None:
            mask = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        # Written out: at these lengths it trains faster on a CPU than the fused kernel's backward pass. The query heads
        # that share a key head stand side by side, so no key or value is copied.
        k, v = k.to(q.dtype), v.to(q.dtype)
        q = q.reshape(batch, k.shape[1], -1, self.shape.head_dim)
        scores = (q @ k.transpose(-1, -2)).view(batch, self.shape.num_attention_heads, length, -1)
        scores = (scores * self.shape.head_dim**-0.5).masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1).to(q.dtype).view(batch, k.shape[1], -1, k.shape[2])
        out = (weights @ v).view(batch, self.shape.num_attention_heads, length, -1)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], cache: Cache | None, layer: int, mask: Tensor | None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, cache, layer, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


class Llama(nn.Module):
    """The decoder with its output head tied to the embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        cos, sin = rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        depth_scale = (2 * shape.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = depth_scale if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def forward(
        self, ids: Tensor, positions: Tensor | None = None, cache: Cache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Give hidden states [sequences, length, hidden] for ids [sequences, length].

        Without `positions` they count from zero. With a cache the new keys and values are appended to it, and `mask`
        [sequences, 1, length, cached + length] says what each position may see; without a mask attention is causal.
        """
        if positions is None:
            rope = (self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        else:
            rope = (self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1))
        x = self.model.embed_tokens(ids)
        for number, layer in enumerate(self.model.layers):
            x = layer(x, rope, cache, number, mask)
        if cache is not None:
            cache.length += ids.shape[1]
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Give logits [..., vocabulary] for hidden states [..., hidden]."""
        return F.linear(hidden, self.model.embed_tokens.weight)

    def new_cache(self, sequences: int, length: int) -> Cache:
        shape = self.shape
        size = (shape.num_hidden_layers, sequences, shape.num_key_value_heads, length, shape.head_dim)
        return Cache(torch.empty(size, device=self.cos.device), torch.empty(size, device=self.cos.device))


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Give cos and sin [positions, head_dim] in the half-split layout of Hugging Face's Llama."""
    frequencies = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    angles = torch.outer(torch.arange(shape.max_position_embeddings).float(), frequencies)
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys [sequences, heads, length, head_dim] by their positions."""
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat((-second, first), -1) * sin).to(x.dtype)
