"""Number formats of GGUF tensors: their numbers in the file, their blocks, and which of them ramify reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLOATS = ("F32", "F16", "BF16")
BLOCK = 32
"""Weights of a block of the plain formats."""
SUPER_BLOCK = 256
"""Weights of a block of the K formats."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """A format.

    Attributes:
        name: as llama.cpp spells it, e.g. "Q4_K".
        block_size: weights of one block; 1 for plain numbers.
        block_bytes: what they take in the file.
    """

    name: str
    block_size: int
    block_bytes: int


READABLE: Mapping[int, TensorType] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", BLOCK, 18),
    3: TensorType("Q4_1", BLOCK, 20),
    6: TensorType("Q5_0", BLOCK, 22),
    7: TensorType("Q5_1", BLOCK, 24),
    8: TensorType("Q8_0", BLOCK, 34),
    10: TensorType("Q2_K", SUPER_BLOCK, 84),
    11: TensorType("Q3_K", SUPER_BLOCK, 110),
    12: TensorType("Q4_K", SUPER_BLOCK, 144),
    13: TensorType("Q5_K", SUPER_BLOCK, 176),
    14: TensorType("Q6_K", SUPER_BLOCK, 210),
    20: TensorType("IQ4_NL", BLOCK, 18),
    23: TensorType("IQ4_XS", SUPER_BLOCK, 136),
    30: TensorType("BF16", 1, 2),
}
REFUSED: Mapping[int, str] = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}
"""Formats that exist and that ramify does not read, by name for the error."""
