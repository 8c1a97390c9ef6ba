"""From models' names to running engines: resolve, read the configuration, load the weights, share out the memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ramify.config import EngineConfig
from ramify.engine.core import EngineCore
from ramify.engine.grammars import Grammars
from ramify.engine.packed_weights import packed_checkpoint, wanted_format
from ramify.errors import ConfigError
from ramify.kv.cache import KVCache
from ramify.kv.formats import KVFormat, kv_format
from ramify.kv.sizing import KVBudget, PoolWish, block_bytes, free_memory_bytes, size_pools
from ramify.models.checkpoint import open_checkpoint
from ramify.models.config import ModelConfig, load_config
from ramify.models.decoder import Decoder, load_decoder
from ramify.models.hub import resolve_model
from ramify.models.reward_head import VALUE_HEAD, RewardHead, complete_reward_head
from ramify.text.constraints import Vocabulary
from ramify.text.tokenizer import load_tokenizer

_log = logging.getLogger(__name__)
_SHARE = {"cpu": 0.5, "cuda": 0.9}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True, slots=True)
class ModelToLoad:
    """A model that is wanted.

    Attributes:
        name: a bundled name ("nano"), a checkpoint's folder, or a hub id.
        reward: set if it shall score: what its `config.json` does not say of that.
    """

    name: str | os.PathLike[str]
    reward: RewardHead | None = None


def load_engine(model: str | os.PathLike[str], config: EngineConfig) -> tuple[EngineCore, Path]:
    """Load a model and make an engine for it.

    Args:
        model: a bundled name ("nano"), a checkpoint's folder, or a hub id.
        config: the engine's options.

    Returns:
        The engine and the checkpoint's folder (for the tokenizer).

    Raises:
        ModelNotFoundError, UnsupportedModelError, CheckpointError: the checkpoint cannot be used.
        ConfigError: the options do not fit the model or the machine.
    """
    return load_engines([ModelToLoad(model)], config)[0]


def load_engines(models: Sequence[ModelToLoad], config: EngineConfig) -> list[tuple[EngineCore, Path]]:
    """Load the models of one process, whose KV pools share one budget (see `kv.sizing`); else as `load_engine`.

    Raises:
        RequestError: a model that shall score is no reward model.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    device = pick_device(config)
    loaded = [_load(each, config, device) for each in models]
    shapes = [(decoder.config, decoder.dtype) for decoder, _ in loaded]
    engines = []
    for (decoder, folder), budget in zip(loaded, plan_pools(config, shapes, device), strict=True):
        model = decoder.config
        max_model_len = pick_max_model_len(config, model)
        _log.info("%s: %s, %s on %s, context %d", folder, model.architecture, decoder.dtype, device, max_model_len)
        _log.info("%s", budget)
        cache = KVCache(
            model.num_layers,
            model.num_kv_heads,
            model.head_dim,
            budget.num_blocks,
            config.block_size,
            _DTYPES[pick_kv_format(config, decoder.dtype).dtype_name],
            device,
        )
        grammars = Grammars(partial(_vocabulary, folder, model.eos_token_ids))
        engines.append((EngineCore(decoder, cache, config, max_model_len, budget, grammars), folder))
    return engines


def _vocabulary(folder: Path, end_ids: Sequence[int]) -> Vocabulary:
    return Vocabulary.of(load_tokenizer(folder), end_ids)


def plan_pool(config: EngineConfig, model: ModelConfig, device: torch.device, dtype: torch.dtype) -> KVBudget:
    """The size of the KV pool of a model that is alone, as a sum that can be printed."""
    return plan_pools(config, [(model, dtype)], device)[0]


def plan_pools(
    config: EngineConfig, models: Sequence[tuple[ModelConfig, torch.dtype]], device: torch.device
) -> list[KVBudget]:
    """The sizes of the KV pools of several models that share the free memory."""
    size = config.block_size
    wishes = [
        PoolWish(
            kv_block_bytes(config, model, dtype), config.max_num_seqs * -(-pick_max_model_len(config, model) // size)
        )
        for model, dtype in models
    ]
    return size_pools(
        wishes,
        block_size=size,
        free_bytes=free_memory_bytes(str(device)),
        share=config.gpu_memory_utilization or _SHARE[device.type],
        num_blocks=config.num_kv_blocks,
    )


def load_model(model: str | os.PathLike[str], config: EngineConfig) -> tuple[Decoder, Path]:
    """A model without an engine around it, and its checkpoint's folder; raises as `load_engine` does."""
    return _load(ModelToLoad(model), config, pick_device(config))


def _load(wanted: ModelToLoad, config: EngineConfig, device: torch.device) -> tuple[Decoder, Path]:
    folder = resolve_model(wanted.name, config.revision)
    plain = load_config(folder)
    max_model_len, dtype = pick_max_model_len(config, plain), pick_dtype(config, plain, device)
    wanted_weights = wanted_format(config.quantization, plain, device)
    checkpoint = open_checkpoint(folder, plain.quantization)
    model = _with_reward_head(wanted, plain, f"{VALUE_HEAD}.weight" in checkpoint)
    if model.embeds and model.head == "vocabulary":
        writes = "lm_head.weight" in checkpoint or model.tie_word_embeddings
        model = model if writes else replace(model, head="none")
    weights = packed_checkpoint(folder, model, checkpoint, wanted_weights, dtype)
    return load_decoder(model, weights, dtype, device, max_model_len), folder


def _with_reward_head(wanted: ModelToLoad, model: ModelConfig, has_value_head: bool) -> ModelConfig:
    """The configuration with its reward head made whole, if it shall score or can do nothing else."""
    if wanted.reward is None and model.reward is None and model.head in ("vocabulary", "none"):
        return model
    said = (wanted.reward or RewardHead()).over(model.reward)
    reward, head = complete_reward_head(os.fspath(wanted.name), said, model.head, model.labels, has_value_head)
    return replace(model, reward=reward, head=head, labels=model.labels if head == model.head else ("value",))


def pick_device(config: EngineConfig) -> torch.device:
    """The device the options name; "auto" takes CUDA where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type not in _SHARE:
        raise ConfigError(f"device={name!r} is not supported: use 'cpu' or 'cuda'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name!r}: this torch build sees no CUDA device; use device='cpu'")
    return device


def pick_dtype(config: EngineConfig, model: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype the options name; "auto" takes the checkpoint's, and bfloat16 for float16 checkpoints."""
    name = config.dtype
    if name == "auto":
        name = "bfloat16" if model.dtype in ("float16", "bfloat16") else "float32"
    return _DTYPES[name]


def pick_kv_format(config: EngineConfig, dtype: torch.dtype) -> KVFormat:
    """The number format of the KV cache that the options name, for weights of `dtype`."""
    return kv_format(config.kv_cache_dtype, str(dtype).removeprefix("torch."))


def kv_block_bytes(config: EngineConfig, model: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of one KV block of a model whose weights are of `dtype`."""
    kept, shape = pick_kv_format(config, dtype), (model.num_layers, model.num_kv_heads, model.head_dim)
    return block_bytes(*shape, config.block_size, kept.element_bytes, kept.row_bytes)


def pick_max_model_len(config: EngineConfig, model: ModelConfig) -> int:
    """The context in tokens.

    Raises:
        ConfigError: more is asked for than the model's positions reach.
    """
    if config.max_model_len is None:
        return model.max_model_len
    if config.max_model_len > model.max_model_len:
        raise ConfigError(
            f"max_model_len={config.max_model_len} is more than the model's {model.max_model_len} positions: use "
            f"{model.max_model_len} or less, or a checkpoint whose config.json stretches them (rope scaling)"
        )
    return config.max_model_len
