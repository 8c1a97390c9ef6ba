"""`StoredQuantization`: how the weights of a checkpoint are stored, and the readers of values that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ramify.errors import CheckpointError, UnsupportedModelError

Layout = Literal["gptq", "gptq_v2", "awq", "packed", "int8", "float8", "gguf", "ramify"]
Activations = Literal["float", "int8"]
WHOLE_ROW = -1
"""A group size: one scale for a whole row of the weight (an output channel)."""


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """How the weights of a checkpoint are stored.

    Attributes:
        method: the ``quant_method`` of its config, e.g. "gptq"; "gguf" for such a file.
        layout: of its tensors.
        bits: of a weight; 0 where every tensor says so itself.
        group_size: weights of a row that share a scale; `WHOLE_ROW` for one scale a row.
        symmetric: no zero points beside the scales.
        overrides: modules may have other sizes than these; their tensors say which.
        block: rows and columns that share a scale, of block-wise float8.
        activations: what the format's definition multiplies the weights by.
    """

    method: str
    layout: Layout
    bits: int = 0
    group_size: int = WHOLE_ROW
    symmetric: bool = True
    overrides: bool = False
    block: tuple[int, int] | None = None
    activations: Activations = "float"


def expect(config: Mapping[str, Any], key: str, allowed: tuple[Any, ...], default: Any = None) -> Any:
    """A value of the config that must be one of several.

    Raises:
        UnsupportedModelError: it is another one.
    """
    value = config.get(key, default)
    for choice in allowed:
        if type(value) is type(choice) and value == choice:
            return value
    raise UnsupportedModelError(
        f"quantization_config with {key}={value!r} is not supported; "
        f"ramify reads {key}={' or '.join(map(repr, allowed))}"
    )


def refuse(config: Mapping[str, Any], key: str, harmless: tuple[Any, ...] = (None,)) -> None:
    """Refuse what would change the weights and is not run."""
    if config.get(key) not in harmless:
        raise UnsupportedModelError(
            f"quantization_config with {key}={config[key]!r} is not supported: it would change the answers; "
            "take another quantisation of the model, or the unquantised checkpoint"
        )


def group_size_of(value: Any) -> int:
    """A group size: 16 or a multiple of it, or -1.

    Raises:
        CheckpointError, UnsupportedModelError: it cannot be, or is not run.
    """
    if type(value) is not int or (value < 1 and value != WHOLE_ROW):
        raise CheckpointError(f"quantization_config: group_size={value!r}; it must be a positive integer, or -1")
    if value != WHOLE_ROW and value % 16:
        raise UnsupportedModelError(f"quantization_config with group_size={value}: ramify runs multiples of 16, and -1")
    return int(value)


def flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false.

    Raises:
        CheckpointError: it is neither.
    """
    value = config.get(key, default)
    if type(value) is not bool:
        raise CheckpointError(f"quantization_config: {key}={value!r}; it must be true or false")
    return bool(value)


def block_of(value: Any, key: str) -> tuple[int, int] | None:
    """Rows and columns of a block; None where there are no blocks.

    Raises:
        CheckpointError: it is no pair of positive integers.
    """
    if value is None:
        return None
    sizes = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise CheckpointError(f"quantization_config: {key}={value!r}; it must be two positive integers")
    return sizes[0], sizes[1]
