"""Number formats of the KV cache: `EngineConfig.kv_cache_dtype`, with vLLM's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ramify.registry import register, technique

KIND = "KV format"
_PAGE = "techniques/quantization.md"


@dataclass(frozen=True, slots=True)
class KVFormat:
    """How keys and values are kept.

    Attributes:
        dtype_name: of their elements, as torch calls it.
        element_bytes: of one element.
        row_bytes: of what is kept for each token and head beside the elements of its key, or of its value.
    """

    dtype_name: ClassVar[str]
    element_bytes: ClassVar[int]
    row_bytes: ClassVar[int] = 0


@register("float32", kind=KIND, trade="lossless", page=_PAGE)
@dataclass(frozen=True, slots=True)
class Float32KV(KVFormat):
    """Keys and values as they are computed."""

    dtype_name: ClassVar[str] = "float32"
    element_bytes: ClassVar[int] = 4


@register("bfloat16", kind=KIND, trade="approximate", page=_PAGE)
@dataclass(frozen=True, slots=True)
class BFloat16KV(KVFormat):
    """Keys and values rounded to bfloat16; what a model stored in 16 bits gets unless asked otherwise."""

    dtype_name: ClassVar[str] = "bfloat16"
    element_bytes: ClassVar[int] = 2


@register("int8", kind=KIND, trade="approximate", page=_PAGE)
@dataclass(frozen=True, slots=True)
class Int8KV(KVFormat):
    """Keys and values in 8 bits, with a float32 scale for each token and head: half the memory of bfloat16."""

    dtype_name: ClassVar[str] = "int8"
    element_bytes: ClassVar[int] = 1
    row_bytes: ClassVar[int] = 4


def kv_format(name: str, weights: str) -> KVFormat:
    """The format that `kv_cache_dtype` names; "auto" is that of the model's `weights` ("float32" or "bfloat16")."""
    found = technique(KIND, weights if name == "auto" else name).factory()
    assert isinstance(found, KVFormat)
    return found
