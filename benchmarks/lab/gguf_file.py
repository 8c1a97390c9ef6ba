"""A checkpoint as a GGUF file, and that in llama.cpp's own low-bit formats, for llama.cpp to run beside the others."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ramify.models.gguf.names import stored_name

Array = npt.NDArray[np.float32]

FAMILIES = ("llama", "qwen2", "qwen3")


def write_gguf(checkpoint: Path, target: Path) -> None:
    """Write a Llama, Qwen2 or Qwen3 checkpoint as GGUF without a vocabulary: token ids are all that is needed.

    Raises:
        ValueError: the checkpoint is of another family.
    """
    import gguf

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    family = config["model_type"]
    if family not in FAMILIES:
        raise ValueError(f"model_type {family!r} is none of {', '.join(FAMILIES)}, which this writer knows")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(target, family)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(_rope(config, "rope_theta", 10_000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    factors = _rope_factors(config, head_dim)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    # llama.cpp's "llama" rotates neighbouring components, the checkpoint's halves: the rows change places.
    turn = {"attn_q": heads, "attn_k": kv_heads} if family == "llama" else {}
    _write_tensors(writer, checkpoint, turn)


def quantise_gguf(source: Path, target: Path, file_type: str) -> None:
    """Let llama.cpp write a file in one of its formats ("Q8_0", "Q4_0"), with its own choices for each tensor.

    Raises:
        RuntimeError: it could not.
    """
    import llama_cpp

    from benchmarks.lab.engines.llamacpp_engine import silence

    silence()
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(options))
    if code != 0:
        raise RuntimeError(f"llama.cpp could not write {target} as {file_type}: code {code}")


def _write_tensors(writer: Any, checkpoint: Path, turn: dict[str, int]) -> None:
    import gguf
    import torch
    from safetensors import safe_open

    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor, target = file.get_tensor(name), stored_name(name)
                change = _turned(turn.get(target.split(".")[-2], 0))
                if tensor.ndim == 1 or tensor.dtype != torch.bfloat16:
                    writer.add_tensor(target, change(tensor.float().numpy()))
                else:
                    bits = change(tensor.view(torch.uint16).numpy())
                    raw = np.ascontiguousarray(bits).view(np.uint8).reshape(len(bits), -1)
                    writer.add_tensor(target, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _turned(heads: int) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """Rows of each head from (first halves, second halves) to neighbours; with 0 heads they stay."""
    if heads == 0:
        return lambda rows: rows
    return lambda rows: (
        rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
    )


def _rope(config: dict[str, Any], name: str, default: float | None = None) -> Any:
    """An entry of the rotary embedding, wherever the configuration keeps it."""
    parts = config.get("rope_parameters") or {}
    return parts.get(name, config.get(name, default))


def _rope_factors(config: dict[str, Any], head_dim: int) -> Array | None:
    """What each frequency is divided by under Llama 3's scaling; None without scaling.

    Raises:
        ValueError: another kind of scaling.
    """
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ValueError(f"rope scaling {kind!r} is not written here: use a shape without scaling or with 'llama3'")
    theta = _rope(config, "rope_theta", 10_000.0)
    waves = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    turns = scaling["original_max_position_embeddings"] / waves
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - smooth) / scaling["factor"] + smooth)).astype(np.float32)
