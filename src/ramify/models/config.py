"""`ModelConfig`: what a checkpoint's `config.json` says, read by ramify itself, checked before any weight is read.

An option that would change the model's answers is either honoured or refused by name; none is skipped. Code that a
checkpoint brings along (`auto_map`) is never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramify.errors import CheckpointError, ConfigError, ModelNotFoundError, UnsupportedModelError
from ramify.models.pooling import MODULES_FILE, Pooling, read_pooling
from ramify.models.registry import ModelFamily, family_of
from ramify.models.reward_head import HeadKind, RewardHead, parse_reward_head
from ramify.models.rope import RopeConfig, parse_rope
from ramify.models.stored.kinds import StoredQuantization
from ramify.models.stored.scheme import parse_quantization
from ramify.models.values import flag, positive, read_json, size, token_ids

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
QUANTIZE_FILE = "quantize_config.json"
"""Where older GPTQ exports say how they are quantised."""
DTYPES = ("float32", "bfloat16", "float16")
_COMMON_DEFAULTS: Mapping[str, Any] = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu"}
# Options of related architectures that some checkpoints carry under a supported name, and their values without effect.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "embedding_multiplier": (None, 1, 1.0),
    "residual_multiplier": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "logit_scale": (None, 1, 1.0),
    "attention_multiplier": (None,),
    "use_mrope": (None, False),
    "dual_chunk_attention_config": (None,),
    "no_rope_layers": (None, []),
    "is_causal": (None, True),
    "add_cross_attention": (None, False),
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape and options of a decoder-only model.

    Attributes:
        architecture: e.g. "LlamaForCausalLM".
        vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim: sizes.
            `num_heads * head_dim` need not be `hidden_size`.
        rms_norm_eps: added to the mean square in every norm.
        rope: rotary embedding.
        max_position_embeddings: the longest context, tokens.
        windows: one entry a layer: how many latest positions (its own included) a query sees; None is all.
        qkv_bias, output_bias, mlp_bias: which projections carry biases (q, k, v; o; gate, up, down).
        qk_norm: RMSNorm over each head's query and key.
        tie_word_embeddings: the output embedding is the input embedding, unless the checkpoint holds its own.
        bos_token_id: id that starts a text, if the model has one.
        eos_token_ids: ids that end a text (`generation_config.json` first, then `config.json`).
        dtype: number format that the checkpoint names, e.g. "bfloat16"; None if it names none.
        head: what stands on the last layer.
        labels: names of the head's labels; none for a vocabulary.
        reward: what is known of how it scores as a reward model; None if nothing is.
        pooling: how it makes one vector of a text; None if it makes none.
        embeds: its files say that it was made for vectors.
        quantization: how the checkpoint's weights are quantised; None if they are floats.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope: RopeConfig
    max_position_embeddings: int
    windows: tuple[int | None, ...]
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    dtype: str | None = None
    head: HeadKind = "vocabulary"
    labels: tuple[str, ...] = ()
    reward: RewardHead | None = None
    pooling: Pooling | None = None
    embeds: bool = False
    quantization: StoredQuantization | None = None

    @property
    def num_outputs(self) -> int:
        """Columns of what the head gives: labels, or the vocabulary; none without a head."""
        return self.vocab_size if self.head == "vocabulary" else len(self.labels)

    @property
    def max_model_len(self) -> int:
        """The longest context, tokens: prompt and output together."""
        return self.max_position_embeddings


def load_config(folder: Path) -> ModelConfig:
    """Read `config.json` (and `generation_config.json` if there) of a checkpoint's folder, or a GGUF file's metadata.

    Raises:
        ModelNotFoundError: there is no `config.json`.
        UnsupportedModelError: the architecture, or an option of it, is not one that ramify runs.
        CheckpointError: a file is no JSON object, or a value in it cannot be right.
    """
    if folder.is_file():
        from ramify.models.gguf.config import load_gguf_config

        return load_gguf_config(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise ModelNotFoundError(
            f"{folder} has no {CONFIG_FILE}: it is no Hugging Face checkpoint; if it holds GGUF "
            "files, name one (folder:file.gguf, or organisation/model:Q4_K_M for a hub id)"
        )
    generation = folder / GENERATION_CONFIG_FILE
    raw = read_json(folder / CONFIG_FILE)
    older = folder / QUANTIZE_FILE
    if older.is_file() and not raw.get("quantization_config"):
        raw["quantization_config"] = read_json(older)
    model = parse_config(raw, read_json(generation) if generation.is_file() else {})
    if model.head not in ("vocabulary", "none") or model.reward is not None:
        return model
    embeds = model.head == "none" or (folder / MODULES_FILE).is_file()
    return replace(model, pooling=read_pooling(folder, raw), embeds=embeds)


def parse_config(raw: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelConfig:
    """Turn the content of `config.json` into a `ModelConfig`; raises as `load_config` does."""
    architectures = raw.get("architectures") or ()
    if isinstance(architectures, str) or not all(isinstance(name, str) for name in architectures):
        raise CheckpointError(f"config.json: architectures={architectures!r}; it must be a list of names")
    family = family_of(tuple(architectures))
    raw = {**_COMMON_DEFAULTS, **family.defaults, **raw}
    _refuse_what_is_not_run(family, raw)
    hidden_size, num_heads = size(raw, "hidden_size"), size(raw, "num_attention_heads")
    num_kv_heads = num_heads if raw.get("num_key_value_heads") is None else size(raw, "num_key_value_heads")
    num_layers, context = size(raw, "num_hidden_layers"), size(raw, "max_position_embeddings")
    optional_bias = family.attention_bias == "option" and flag(raw, "attention_bias")
    return ModelConfig(
        architecture=family.architecture,
        vocab_size=size(raw, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=size(raw, "intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_grouped(num_heads, num_kv_heads),
        head_dim=_head_dim(raw, hidden_size, num_heads),
        rms_norm_eps=positive(raw, "rms_norm_eps"),
        rope=parse_rope(raw, context),
        max_position_embeddings=context,
        windows=_windows(family, raw, num_layers),
        qkv_bias=optional_bias or family.attention_bias == "qkv",
        output_bias=optional_bias,
        mlp_bias=family.mlp_bias_option and flag(raw, "mlp_bias"),
        qk_norm=family.qk_norm,
        tie_word_embeddings=flag(raw, "tie_word_embeddings"),
        bos_token_id=next(iter(token_ids("bos_token_id", generation or {}, raw)), None),
        eos_token_ids=token_ids("eos_token_id", generation or {}, raw),
        dtype=_dtype(raw),
        head=family.head,
        labels=() if family.head in ("vocabulary", "none") else _labels(family, raw),
        reward=_reward(family, raw),
        quantization=_quantization(raw),
    )


def _refuse_what_is_not_run(family: ModelFamily, raw: Mapping[str, Any]) -> None:
    activation = raw.get("hidden_act") or raw.get("hidden_activation")
    if activation not in ("silu", "swish"):
        raise UnsupportedModelError(f"hidden_act={activation!r} is not supported; ramify's MLP is gated SiLU")
    for key, harmless in _HARMLESS.items():
        if key in raw and raw[key] not in harmless:
            raise UnsupportedModelError(
                f"{family.architecture} with {key}={raw[key]!r} is not supported: it would change the answers"
            )
    own_code = [key for key in raw.get("auto_map") or () if key.startswith("AutoModel")]
    if own_code and not family.replaces_code:
        raise UnsupportedModelError(
            f"the checkpoint brings its own model code (auto_map: {', '.join(own_code)}), which ramify never runs; "
            "if the code is the plain architecture, remove auto_map from config.json"
        )


def _quantization(raw: Mapping[str, Any]) -> StoredQuantization | None:
    given = raw.get("quantization_config") or raw.get("compression_config")
    if not given:
        return None
    if not isinstance(given, Mapping):
        raise CheckpointError(f"config.json: quantization_config={given!r}; it must be an object")
    return parse_quantization(given)


def _windows(family: ModelFamily, raw: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    """The sliding window of each layer (arXiv:2310.06825)."""
    kinds = raw.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != num_layers):
        raise CheckpointError(f"config.json: layer_types={kinds!r}; it must name each of {num_layers} layers' kind")
    unknown = set(kinds or ()) - {"full_attention", "sliding_attention"}
    if unknown:
        raise UnsupportedModelError(f"layer_types {', '.join(map(repr, sorted(unknown)))} are not supported")
    has_window = raw.get("sliding_window") is not None and family.windows != "never"
    if family.windows == "by layer":
        has_window = has_window and flag(raw, "use_sliding_window")
        if kinds is None and has_window:
            full_layers = size(raw, "max_window_layers", least=0)
            kinds = ["full_attention" if index < full_layers else "sliding_attention" for index in range(num_layers)]
        sliding = [kind == "sliding_attention" for kind in kinds or ()]
    else:
        sliding = [has_window] * num_layers
        if kinds is not None and sliding != [kind == "sliding_attention" for kind in kinds]:
            raise UnsupportedModelError(f"{family.architecture} with layer_types={kinds} is not supported")
    if not any(sliding) or not has_window:
        return (None,) * num_layers
    window = size(raw, "sliding_window")
    return tuple(window if slides else None for slides in sliding)


def _head_dim(raw: Mapping[str, Any], hidden_size: int, num_heads: int) -> int:
    if raw.get("head_dim") is None and hidden_size % num_heads:
        raise CheckpointError(
            f"config.json: hidden_size={hidden_size} is not a multiple of num_attention_heads={num_heads}, "
            "and head_dim is not given"
        )
    head_dim = hidden_size // num_heads if raw.get("head_dim") is None else size(raw, "head_dim")
    if head_dim % 2:
        raise UnsupportedModelError(f"head_dim={head_dim} is odd; rotary embeddings turn pairs")
    return head_dim


def _grouped(num_heads: int, num_kv_heads: int) -> int:
    if num_heads % num_kv_heads:
        raise CheckpointError(
            f"config.json: num_attention_heads={num_heads} is not a multiple of num_key_value_heads={num_kv_heads}"
        )
    return num_kv_heads


def _dtype(raw: Mapping[str, Any]) -> str | None:
    name = raw.get("dtype") or raw.get("torch_dtype")
    if name is None or name == "auto":
        return None
    if name not in DTYPES:
        raise UnsupportedModelError(f"config.json: dtype={name!r} is not supported; ramify loads {', '.join(DTYPES)}")
    return str(name)


def _labels(family: ModelFamily, raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the labels, in their order; transformers leaves them out where there are two without names."""
    names = raw.get("id2label") or {}
    count = family.num_labels or raw.get("num_labels") or len(names) or 2
    if not isinstance(names, Mapping) or isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise CheckpointError(f"config.json: num_labels={count!r}, id2label={names!r}; they must be a number and names")
    return tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(count))


def _reward(family: ModelFamily, raw: Mapping[str, Any]) -> RewardHead | None:
    given = raw.get("ramify")
    if given is None:
        return family.reward
    if not isinstance(given, Mapping):
        raise UnsupportedModelError(f'config.json: "ramify" is {given!r}; it must be like {{"kind": "prm", ...}}')
    try:
        return parse_reward_head(given, 'config.json: "ramify"').over(family.reward)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
