"""Writes GGUF files for the tests, from the definition of the format: header, metadata, and blocks of each kind.

Every packer also gives the numbers that its blocks stand for, by the plain formula of the format, so that a reader can
be held against something that shares no code with it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Array = NDArray[Any]
Packed = tuple[bytes, Array]
"""The bytes of a tensor, and the float32 numbers that they stand for."""
NUMBERS = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "BF16": 30,
}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
_CODES = {UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?", UINT64: "<Q"}


class Typed:
    """A metadata value with a type other than the one that Python's suggests."""

    def __init__(self, kind: int, value: Any) -> None:
        self.kind, self.value = kind, value


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _kind_of(value: Any) -> int:
    return {bool: BOOL, int: UINT32, float: FLOAT32, str: STRING, bytes: STRING, list: ARRAY}[type(value)]


def value_bytes(value: Any) -> tuple[int, bytes]:
    """Type number and bytes of a metadata value."""
    if isinstance(value, Typed):
        return value.kind, struct.pack(_CODES[value.kind], value.value)
    kind = _kind_of(value)
    if kind == STRING:
        return kind, text(value)
    if kind == ARRAY:
        inner = INT32 if value and type(value[0]) is int else _kind_of(value[0] if value else "")
        parts = [text(each) if inner == STRING else struct.pack(_CODES[inner], each) for each in value]
        return kind, struct.pack("<IQ", inner, len(value)) + b"".join(parts)
    return kind, struct.pack(_CODES[kind], value)


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[str, Sequence[int], bytes]],
    *,
    version: int = 3,
    alignment: int = 32,
) -> Path:
    """Write a file.

    Args:
        path: of the file.
        metadata: key to value.
        tensors: name to type, shape (outermost first) and bytes.
        version: of the format.
        alignment: of the tensors; the metadata is expected to say so where it is not 32.
    """
    head = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        kind, raw = value_bytes(value)
        head += [text(key), struct.pack("<I", kind), raw]
    offset, body = 0, []
    for name, (kind_name, shape, raw) in tensors.items():
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += [text(name), sizes, struct.pack("<IQ", NUMBERS[kind_name], offset)]
        padding = -len(raw) % alignment
        body += [raw, bytes(padding)]
        offset += len(raw) + padding
    start = b"".join(head)
    path.write_bytes(start + bytes(-len(start) % alignment) + b"".join(body))
    return path


def _half(values: Array) -> tuple[Array, Array]:
    """float16 as bytes [..., 2] and as float32."""
    half = values.astype("<f2")
    return half[..., None].view(np.uint8), half.astype(np.float32)


def _groups(weight: Array, size: int) -> Array:
    return np.ascontiguousarray(weight.astype(np.float32)).reshape(-1, size)


def _pair(codes: Array) -> Array:
    """The first half of each row in the low four bits, the second half in the high ones."""
    first, second = np.split(codes.astype(np.uint8), 2, axis=-1)
    return first | (second << 4)


def _fifth(codes: Array) -> Array:
    bits = (codes.astype(np.uint32) >> 4) & 1
    return (bits << np.arange(32, dtype=np.uint32)).sum(-1).astype("<u4")[:, None].view(np.uint8)


def _done(parts: Sequence[Array], values: Array, weight: Array) -> Packed:
    return np.concatenate(parts, axis=-1).astype(np.uint8).tobytes(), values.astype(np.float32).reshape(weight.shape)


def pack_f32(weight: Array) -> Packed:
    return weight.astype("<f4").tobytes(), weight.astype(np.float32)


def pack_f16(weight: Array) -> Packed:
    return weight.astype("<f2").tobytes(), weight.astype(np.float16).astype(np.float32)


def pack_bf16(weight: Array) -> Packed:
    upper = weight.astype("<f4").view("<u4") >> 16
    return upper.astype("<u2").tobytes(), (upper << 16).view(np.float32)


def _symmetric(weight: Array, bits: int) -> Packed:
    """Q4_0 and Q5_0: scale * (code - middle)."""
    middle = 1 << (bits - 1)
    x = _groups(weight, 32)
    raw, scale = _half(np.abs(x).max(1, keepdims=True) / (middle - 1))
    codes = np.clip(np.rint(x / scale) + middle, 0, 2 * middle - 1)
    parts = [raw[:, 0], *([_fifth(codes)] if bits == 5 else []), _pair(codes.astype(np.uint8) & 15)]
    return _done(parts, scale * (codes - middle), weight)


def _with_min(weight: Array, bits: int) -> Packed:
    """Q4_1 and Q5_1: scale * code + min."""
    x = _groups(weight, 32)
    raw_min, low = _half(x.min(1, keepdims=True))
    raw, scale = _half((x.max(1, keepdims=True) - low) / ((1 << bits) - 1))
    codes = np.clip(np.rint((x - low) / scale), 0, (1 << bits) - 1)
    parts = [raw[:, 0], raw_min[:, 0], *([_fifth(codes)] if bits == 5 else []), _pair(codes.astype(np.uint8) & 15)]
    return _done(parts, (scale * codes.astype(np.float32)) + low, weight)


def pack_q8_0(weight: Array) -> Packed:
    x = _groups(weight, 32)
    raw, scale = _half(np.abs(x).max(1, keepdims=True) / 127)
    codes = np.clip(np.rint(x / scale), -127, 127).astype(np.int8)
    return _done([raw[:, 0], codes.view(np.uint8)], scale * codes.astype(np.float32), weight)


def _six_bits(scales: Array, mins: Array) -> Array:
    """Eight scales and eight mins of 6 bits in 12 bytes."""
    low = np.concatenate([scales[:, :4], mins[:, :4]], axis=1)
    low[:, :4] |= (scales[:, 4:] >> 4) << 6
    low[:, 4:] |= (mins[:, 4:] >> 4) << 6
    return np.concatenate([low, (scales[:, 4:] & 15) | ((mins[:, 4:] & 15) << 4)], axis=1)


def _k_with_min(weight: Array, bits: int) -> Packed:
    """Q4_K and Q5_K: blocks of 256 in 8 groups; d * scale * code - dmin * min."""
    x, most = _groups(weight, 256).reshape(-1, 8, 32), (1 << bits) - 1
    mins = np.maximum(-x.min(2), 0)
    scales = (x.max(2) + mins) / most
    raw_d, d = _half(scales.max(1, keepdims=True) / 63)
    raw_m, dmin = _half(mins.max(1, keepdims=True) / 63 + 1e-6)
    small = np.clip(np.rint(scales / d), 1, 63).astype(np.uint8)
    small_min = np.clip(np.rint(mins / dmin), 0, 63).astype(np.uint8)
    scale, low = (d * small.astype(np.float32))[..., None], (dmin * small_min.astype(np.float32))[..., None]
    codes = np.clip(np.rint((x + low) / scale), 0, most).astype(np.uint8)
    pairs = (codes & 15).reshape(-1, 4, 2, 32)
    parts = [raw_d[:, 0], raw_m[:, 0], _six_bits(small, small_min)]
    if bits == 5:
        parts.append(((codes >> 4) << np.arange(8, dtype=np.uint8)[:, None]).sum(1).astype(np.uint8))
    parts.append((pairs[:, :, 0] | (pairs[:, :, 1] << 4)).reshape(len(x), 128))
    return _done(parts, scale * codes.astype(np.float32) - low, weight)


def pack_q6_k(weight: Array) -> Packed:
    """Blocks of 256 in 16 groups; d * scale * (code - 32)."""
    x = _groups(weight, 256).reshape(-1, 16, 16)
    scales = np.abs(x).max(2) / 31
    raw, d = _half(scales.max(1, keepdims=True) / 127)
    small = np.clip(np.rint(scales / d), 1, 127).astype(np.int8)
    scale = (d * small.astype(np.float32))[..., None]
    codes = np.clip(np.rint(x / scale), -32, 31).astype(np.int8)
    stored = (codes + 32).astype(np.uint8).reshape(-1, 2, 4, 32)  # halves of 128, then four runs of 32
    low = (stored[:, :, :2] & 15) | ((stored[:, :, 2:] & 15) << 4)
    high = ((stored >> 4) << np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]).sum(2).astype(np.uint8)
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), small.view(np.uint8), raw[:, 0]]
    return _done(parts, scale * codes.astype(np.float32), weight)


PACKERS: Mapping[str, Callable[[Array], Packed]] = {
    "F32": pack_f32,
    "F16": pack_f16,
    "BF16": pack_bf16,
    "Q4_0": lambda weight: _symmetric(weight, 4),
    "Q4_1": lambda weight: _with_min(weight, 4),
    "Q5_0": lambda weight: _symmetric(weight, 5),
    "Q5_1": lambda weight: _with_min(weight, 5),
    "Q8_0": pack_q8_0,
    "Q4_K": lambda weight: _k_with_min(weight, 4),
    "Q5_K": lambda weight: _k_with_min(weight, 5),
    "Q6_K": pack_q6_k,
}
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """What a tensor of a Hugging Face checkpoint is called."""
    stem, _, kind = name.rpartition(".")
    parts = stem.split(".", 3)
    if len(parts) == 4:
        return f"blk.{parts[2]}.{_NAMES[parts[3]]}.{kind}"
    return {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[stem] + f".{kind}"


def convert(folder: Path, path: Path, kind_of: Callable[[str], str], **metadata: Any) -> tuple[Path, dict[str, Array]]:
    """Convert a Hugging Face checkpoint, as the converter of llama.cpp does.

    Args:
        folder: of the checkpoint, with one `model.safetensors`.
        path: of the file to write.
        kind_of: the type of a matrix, from its name in the checkpoint.
        metadata: further entries, "__" for ".", or others than the config's.

    Returns:
        The file, and the weights that its numbers stand for, by their names in the checkpoint.
    """
    config = json.loads((folder / "config.json").read_text())
    architecture = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    tensors, values = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        kind = kind_of(name) if weight.ndim == 2 else "F32"
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        turned = heads.get(name.split(".")[-2]) if architecture == "llama" else None
        raw, values[name] = PACKERS[kind](weight if turned is None else _interleaved(weight, turned))
        if turned is not None:
            values[name] = _halves(values[name], turned)
        tensors[gguf_name(name)] = (kind, weight.shape, raw)
    entries = {"general.architecture": architecture, **_shape(architecture, config)}
    entries.update({key.replace("__", ".").replace("ARCH", architecture): each for key, each in metadata.items()})
    return write_gguf(path, entries, tensors), values


def _interleaved(weight: Array, heads: int) -> Array:
    """Each head's halves of rows, one of the first and one of the second in turn."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _halves(weight: Array, heads: int) -> Array:
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _shape(arch: str, config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return {
        "general.file_type": 0,
        f"{arch}.context_length": config["max_position_embeddings"],
        f"{arch}.embedding_length": config["hidden_size"],
        f"{arch}.block_count": config["num_hidden_layers"],
        f"{arch}.feed_forward_length": config["intermediate_size"],
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": config["num_key_value_heads"],
        f"{arch}.attention.key_length": head_dim,
        f"{arch}.attention.value_length": head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        f"{arch}.rope.dimension_count": head_dim,
        f"{arch}.rope.freq_base": float(config["rope_parameters"]["rope_theta"]),
        "tokenizer.ggml.eos_token_id": 0,
    }


def read_parts(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """Metadata (scalars and texts) and tensors of a file that `write_gguf` wrote, to write it anew with changes."""
    from ramify.models.gguf.reader import read_gguf

    file = read_gguf(path)
    raw = path.read_bytes()
    tensors = {
        each.name: (each.type.name, each.shape, raw[each.offset : each.offset + each.num_bytes])
        for each in file.tensors.values()
    }
    return dict(file.metadata), tensors
