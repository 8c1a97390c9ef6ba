"""Which path each operator takes on this machine, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ramify.kernels.native import extension, why_not


@dataclass(frozen=True, slots=True)
class OperatorPath:
    """One operator's path.

    Attributes:
        operator: what it computes.
        path: "native avx2" and the like, or "torch".
        why: the instructions it uses, or why it is not native.
    """

    operator: str
    path: str
    why: str


_VNNI, _FMA_512, _FMA_256 = "vpdpbusd", "512-bit fma", "256-bit fma"
_PLAIN = "plain C++: the processor has no AVX2"
_INTEGER = {"avx512bf16": _VNNI, "avx512": _VNNI, "avx2": "vpmaddubsw and vpmaddwd", "portable": _PLAIN}
_FLOAT = {"avx512bf16": _FMA_512, "avx512": _FMA_512, "avx2": _FMA_256, "portable": _PLAIN}
_BFLOAT = {
    "avx512bf16": "vdpbf16ps",
    "avx512": _FMA_512 + ": the processor has no AVX512-BF16",
    "avx2": _FMA_256 + ": the processor has no AVX512-BF16",
    "portable": _PLAIN,
}
_OPERATORS: Mapping[str, Mapping[str, str]] = {
    "w8a8, w6a8 and w4a8 products": _INTEGER,
    "bfloat16 products": _BFLOAT,
    "float32, w8a16 and w4a16 products": _FLOAT,
    "paged attention": _FLOAT,
    "norms, rotary, silu, embedding": _FLOAT,
    "sampling": _FLOAT,
}


def operator_paths() -> list[OperatorPath]:
    """The path of every operator on the CPU."""
    module = extension()
    if module is None:
        return [OperatorPath(operator, "torch", why_not()) for operator in _OPERATORS]
    isa = module.isa()
    return [OperatorPath(operator, f"native {isa}", by_isa[isa]) for operator, by_isa in _OPERATORS.items()]
