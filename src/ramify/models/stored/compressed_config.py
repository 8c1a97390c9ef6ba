"""The `quantization_config` of compressed-tensors (llm-compressor): groups of modules, each with the arguments of its
weights. Files with one kind of weight are read; mixtures of several are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.models.stored.kinds import (
    WHOLE_ROW,
    Activations,
    Layout,
    StoredQuantization,
    block_of,
    expect,
    flag,
    group_size_of,
    refuse,
)

_FORMATS: Mapping[str, tuple[Layout, str]] = {
    "pack-quantized": ("packed", "int"),
    "int-quantized": ("int8", "int"),
    "float-quantized": ("float8", "float"),
}
_NAIVE = "naive-quantized"
_WEIGHT_ARGUMENTS = ("num_bits", "type", "symmetric", "strategy", "group_size", "block_structure")


def parse_compressed(config: Mapping[str, Any]) -> StoredQuantization:
    """Read the `quantization_config` of a compressed-tensors checkpoint.

    Raises:
        UnsupportedModelError: a format, or an option of one, that ramify does not run.
        CheckpointError: a value that cannot be.
    """
    expect(config, "quantization_status", ("compressed", "frozen"), "compressed")
    refuse(config, "transform_config", (None, {}))
    sparsity = config.get("sparsity_config") or {}
    if not isinstance(sparsity, Mapping) or sparsity.get("format", "dense") != "dense":
        raise UnsupportedModelError("compressed-tensors with sparse weights (sparsity_config) is not supported")
    group = _one_group(config)
    weights = _arguments(group, "weights")
    layout, number = _layout(group.get("format") or config.get("format"), weights)
    expect(weights, "type", (number,), "int")
    bits = expect(weights, "num_bits", (4, 8) if layout == "packed" else (8,))
    block = block_of(weights.get("block_structure"), "block_structure")
    group_size = _group_size(weights, layout)
    return StoredQuantization(
        method="compressed-tensors",
        layout=layout,
        bits=bits,
        group_size=group_size,
        symmetric=flag(weights, "symmetric", True),
        block=block if weights.get("strategy") == "block" else None,
        activations=_activations(group, number),
    )


def _one_group(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The group of modules; several groups count as one where their weights are stored alike."""
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not groups or not all(isinstance(each, Mapping) for each in groups.values()):
        raise CheckpointError(f"quantization_config: config_groups={groups!r}; it must map names to groups")
    several: list[Mapping[str, Any]] = list(groups.values())
    first, *others = several
    for other in others:
        if _stored_as(other) != _stored_as(first):
            raise UnsupportedModelError(
                "compressed-tensors with config_groups of several formats is not supported: "
                "take a checkpoint whose quantised modules all have one format"
            )
    return first


def _stored_as(group: Mapping[str, Any]) -> tuple[Any, ...]:
    weights = _arguments(group, "weights")
    inputs = group.get("input_activations")
    return (*(weights.get(key) for key in _WEIGHT_ARGUMENTS), group.get("format"), inputs is None)


def _arguments(group: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    arguments = group.get(key)
    if not isinstance(arguments, Mapping):
        raise CheckpointError(f"quantization_config: {key} of a group is {arguments!r}; it must be an object")
    return arguments


def _layout(name: Any, weights: Mapping[str, Any]) -> tuple[Layout, str]:
    if name == _NAIVE:
        name = "float-quantized" if weights.get("type") == "float" else "int-quantized"
    if not isinstance(name, str) or name not in _FORMATS:
        raise UnsupportedModelError(
            f"compressed-tensors with format={name!r} is not supported; ramify reads {', '.join(_FORMATS)}, {_NAIVE}"
        )
    return _FORMATS[name]


def _group_size(weights: Mapping[str, Any], layout: Layout) -> int:
    strategy = weights.get("strategy")
    if strategy is None:
        strategy = "group" if weights.get("group_size") not in (None, WHOLE_ROW) else "channel"
    allowed = {"float8": ("tensor", "channel", "block"), "int8": ("tensor", "channel", "group")}
    if strategy not in allowed.get(layout, ("channel", "group")):
        raise UnsupportedModelError(
            f"compressed-tensors with strategy={strategy!r} for {layout} weights is not supported"
        )
    return group_size_of(weights.get("group_size")) if strategy == "group" else WHOLE_ROW


def _activations(group: Mapping[str, Any], number: str) -> Activations:
    """Integer activations where the checkpoint was made for them; float8 ones stay floats."""
    if group.get("input_activations") is None or number == "float":
        return "float"
    inputs = _arguments(group, "input_activations")
    expect(inputs, "type", ("int",), "int")
    expect(inputs, "num_bits", (8,))
    return "int8"
