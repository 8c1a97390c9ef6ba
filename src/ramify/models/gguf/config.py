"""The metadata of a GGUF file as a `ModelConfig`: through the same checks as a `config.json`.

A key of the architecture that is not known here may change the model's answers, so it is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ramify.errors import UnsupportedModelError
from ramify.models.config import ModelConfig, parse_config
from ramify.models.gguf.metadata import CONTROL, ROPE_FACTORS, TOKEN_TYPES_KEY, TOKENS_KEY, Metadata
from ramify.models.gguf.reader import GgufFile
from ramify.models.gguf.shards import read_model
from ramify.models.pooling import Pooling, PoolingMode
from ramify.models.stored.kinds import StoredQuantization

_ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_ALL_FLOAT32 = 0
"""The value of general.file_type for files without a smaller number."""
_KNOWN = frozenset(
    {
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "attention.layer_norm_epsilon",
        "attention.sliding_window",
        "attention.causal",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scale_linear",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.finetuned",
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "expert_count",
        "expert_used_count",
        "pooling_type",
        "tensor_data_layout",
        "use_parallel_residual",
    }
)
_MUST_BE: Mapping[str, Any] = {
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "use_parallel_residual": False,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
    "rope.scaling.attn_factor": 1.0,
}
_POOLING: Mapping[int, PoolingMode] = {1: "mean", 2: "cls", 3: "last"}
_END_TEXTS = (b"<|endoftext|>", b"<|im_end|>", b"<|eot_id|>", b"<|eom_id|>", b"<|end_of_text|>")
"""Control tokens that end an answer, whatever the metadata calls them; as llama.cpp has it."""
_BOS_KEY = "tokenizer.ggml.bos_token_id"
_END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


def load_gguf_config(path: Path) -> ModelConfig:
    """Read the configuration out of a GGUF file.

    Raises:
        UnsupportedModelError: the architecture, or an option of it, is not one that ramify runs.
        CheckpointError: the file is corrupt, or a value in it cannot be right.
    """
    files = read_model(path)
    metadata = Metadata(files[0])
    tensors = {name: (file, tensor) for file in files for name, tensor in file.tensors.items()}
    _refuse_what_is_not_run(metadata)
    if "token_embd.weight" not in tensors:
        raise UnsupportedModelError(
            f"{path} has no token_embd.weight: it is no language model (an adapter, a projector?)"
        )
    vocabulary = tensors["token_embd.weight"][1].shape[0]
    model = parse_config(_as_config(metadata, vocabulary, "output.weight" in tensors))
    factors = _rope_factors(tensors[ROPE_FACTORS][0], model) if ROPE_FACTORS in tensors else ()
    kind = metadata.integer("{arch}.pooling_type", 0)
    if kind and kind not in _POOLING:
        raise UnsupportedModelError(f"{path}: pooling_type={kind} is not supported; ramify runs 0 to 3")
    return replace(
        model,
        rope=replace(model.rope, frequency_factors=factors),
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        pooling=Pooling(_POOLING[kind]) if kind else Pooling(),
        embeds=bool(kind),
        quantization=StoredQuantization("gguf", "gguf", activations="int8"),
    )


def _refuse_what_is_not_run(metadata: Metadata) -> None:
    architecture = metadata.architecture
    if architecture not in _ARCHITECTURES:
        raise UnsupportedModelError(
            f"{metadata.path} is of the architecture {architecture!r}; ramify reads {', '.join(_ARCHITECTURES)}"
        )
    prefix = architecture + "."
    for key in metadata.raw:
        option = key.removeprefix(prefix)
        if not key.startswith(prefix):
            continue
        value = metadata.raw[key]
        if option not in _KNOWN or (option in _MUST_BE and value != _MUST_BE[option]):
            raise UnsupportedModelError(
                f"{metadata.path}: {key}={value!s:.60} is not supported: it may change the answers"
            )


def _as_config(metadata: Metadata, vocabulary: int, own_head: bool) -> dict[str, Any]:
    """What `config.json` would say."""
    heads, hidden = metadata.integer("{arch}.attention.head_count"), metadata.integer("{arch}.embedding_length")
    head_dim = metadata.integer("{arch}.attention.key_length", hidden // heads if heads else 0)
    for key in ("{arch}.attention.value_length", "{arch}.rope.dimension_count"):
        length = metadata.integer(key, head_dim)
        if length != head_dim:
            raise UnsupportedModelError(
                f"{metadata.path}: {metadata.architecture}{key[6:]}={length} is not the length of a key, {head_dim}; "
                "ramify rotates whole heads of one length"
            )
    context = metadata.integer("{arch}.context_length")
    window = metadata.integer("{arch}.attention.sliding_window", 0)
    architecture = _ARCHITECTURES[metadata.architecture]
    if window and metadata.architecture == "llama":
        architecture = "MistralForCausalLM"
    elif 0 < window < context:
        raise UnsupportedModelError(f"{metadata.path}: a sliding window in {metadata.architecture} is not supported")
    return {
        "architectures": [architecture],
        "vocab_size": _vocabulary_size(metadata, vocabulary),
        "hidden_size": hidden,
        "intermediate_size": metadata.integer("{arch}.feed_forward_length"),
        "num_hidden_layers": metadata.integer("{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.integer("{arch}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": metadata.number("{arch}.attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": context,
        "sliding_window": window or None,
        "tie_word_embeddings": not own_head,
        "rope_theta": metadata.number("{arch}.rope.freq_base", 10_000.0),
        "rope_scaling": _rope_scaling(metadata),
        "bos_token_id": metadata.integer(_BOS_KEY) if _BOS_KEY in metadata else None,
        "eos_token_id": _end_ids(metadata),
        "dtype": "float32" if metadata.integer("general.file_type", 1) == _ALL_FLOAT32 else "float16",
    }


def _vocabulary_size(metadata: Metadata, rows: int) -> int:
    """Rows of the embedding; at least as many as there are tokens."""
    if TOKENS_KEY in metadata and len(metadata.raw_texts(TOKENS_KEY)) > rows:
        count = len(metadata.raw_texts(TOKENS_KEY))
        raise metadata.wrong(TOKENS_KEY, f"{count} tokens", f"no more tokens than the embedding has rows, {rows}")
    return rows


def _rope_scaling(metadata: Metadata) -> dict[str, Any] | None:
    kind = metadata.text("{arch}.rope.scaling.type", "none")
    if "{arch}.rope.scale_linear" in metadata:
        return {"rope_type": "linear", "factor": metadata.number("{arch}.rope.scale_linear")}
    if kind == "none":
        return None
    scaling: dict[str, Any] = {"rope_type": kind, "factor": metadata.number("{arch}.rope.scaling.factor")}
    if "{arch}.rope.scaling.original_context_length" in metadata:
        original = metadata.integer("{arch}.rope.scaling.original_context_length")
        scaling["original_max_position_embeddings"] = original
    for ours, theirs in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
        if f"{{arch}}.rope.scaling.{theirs}" in metadata:
            scaling[ours] = metadata.number(f"{{arch}}.rope.scaling.{theirs}")
    return scaling


def _end_ids(metadata: Metadata) -> list[int]:
    """Tokens that end an answer: those that the metadata names, and control tokens that always do."""
    ids = [metadata.integer(key) for key in _END_KEYS if key in metadata]
    if TOKENS_KEY in metadata and TOKEN_TYPES_KEY in metadata:
        tokens, kinds = metadata.raw_texts(TOKENS_KEY), metadata.numbers(TOKEN_TYPES_KEY, (int,))
        pairs = enumerate(zip(tokens, kinds, strict=False))
        ids += [index for index, (token, kind) in pairs if kind == CONTROL and token in _END_TEXTS]
    return ids


def _rope_factors(file: GgufFile, model: ModelConfig) -> tuple[float, ...]:
    """The factors of the wavelengths, one for each pair of a head."""
    tensor = file.tensors[ROPE_FACTORS]
    if tensor.type.name != "F32" or tensor.shape != (model.head_dim // 2,):
        raise UnsupportedModelError(
            f"{file.path}: tensor {ROPE_FACTORS} is {tensor.type.name} {list(tensor.shape)}; "
            f"it must be F32 [{model.head_dim // 2}]"
        )
    factors = file.bytes_of(tensor).view(torch.float32)
    if not torch.isfinite(factors).all() or not (factors > 0).all():
        raise UnsupportedModelError(f"{file.path}: tensor {ROPE_FACTORS} holds a factor that is no positive number")
    return tuple(factors.tolist())
