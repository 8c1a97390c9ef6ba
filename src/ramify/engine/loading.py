"""From a model's name to a running engine: resolve, read the configuration, size the KV pool, load the weights."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from ramify.config import EngineConfig
from ramify.engine.core import EngineCore
from ramify.errors import ConfigError
from ramify.kv.cache import KVCache
from ramify.kv.sizing import KVBudget, block_bytes, free_memory_bytes, size_pool
from ramify.models.checkpoint import open_checkpoint
from ramify.models.config import ModelConfig, load_config
from ramify.models.decoder import load_decoder
from ramify.models.hub import resolve_model

_log = logging.getLogger(__name__)
_SHARE = {"cpu": 0.5, "cuda": 0.9}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
    folder = resolve_model(model, config.revision)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    model_config = load_config(folder)
    device = pick_device(config)
    dtype = pick_dtype(config, model_config, device)
    max_model_len = pick_max_model_len(config, model_config)
    decoder = load_decoder(model_config, open_checkpoint(folder), dtype, device, max_model_len)
    budget = plan_pool(config, model_config, device, dtype)
    _log.info("%s: %s, %s on %s, context %d", model, model_config.architecture, dtype, device, max_model_len)
    _log.info("%s", budget)
    cache = KVCache(
        model_config.num_layers,
        model_config.num_kv_heads,
        model_config.head_dim,
        budget.num_blocks,
        config.block_size,
        dtype,
        device,
    )
    return EngineCore(decoder, cache, config, max_model_len, budget), folder


def plan_pool(config: EngineConfig, model: ModelConfig, device: torch.device, dtype: torch.dtype) -> KVBudget:
    """The size of the KV pool, as a sum that can be printed."""
    size = block_bytes(model.num_layers, model.num_kv_heads, model.head_dim, config.block_size, dtype.itemsize)
    return size_pool(
        block_bytes=size,
        block_size=config.block_size,
        max_num_seqs=config.max_num_seqs,
        max_model_len=pick_max_model_len(config, model),
        free_bytes=free_memory_bytes(str(device)),
        share=config.gpu_memory_utilization or _SHARE[device.type],
        num_blocks=config.num_kv_blocks,
    )


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
