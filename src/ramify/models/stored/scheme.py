"""Reads a checkpoint's `quantization_config`: what it says is honoured, or refused by name.

What every module's own tensors show (whether it is quantised at all, overrides of its bits and groups) is read from
these tensors when they are loaded; lists of exceptions in the config need no matching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ramify.errors import CheckpointError, UnsupportedModelError
from ramify.models.stored.compressed_config import parse_compressed
from ramify.models.stored.kinds import WHOLE_ROW, StoredQuantization, block_of, expect, flag, group_size_of, refuse

_BITS = (4, 8)


def parse_quantization(config: Mapping[str, Any]) -> StoredQuantization:
    """Read a `quantization_config`, or the `quantize_config.json` of older GPTQ exports.

    Raises:
        UnsupportedModelError: a method, or an option of one, that ramify does not run.
        CheckpointError: a value that cannot be.
    """
    method = config.get("quant_method", "gptq" if "desc_act" in config else None)
    if not isinstance(method, str):
        raise CheckpointError(f"config.json: quantization_config has quant_method={method!r}; it must be a name")
    if method not in _METHODS:
        raise UnsupportedModelError(
            f"checkpoints quantised by {method!r} are not supported; ramify reads {', '.join(_METHODS)} (and GGUF "
            "files): use the unquantised checkpoint, which `ramify quantize` can make smaller"
        )
    return _METHODS[method](config)


def _gptq(config: Mapping[str, Any]) -> StoredQuantization:
    stored = expect(config, "checkpoint_format", ("gptq", "gptq_v2"), config.get("format", "gptq"))
    if flag(config, "is_marlin_format", False):
        raise UnsupportedModelError("GPTQ checkpoints in Marlin's layout are not supported: take the plain layout")
    expect(config, "pack_dtype", ("int32",), "int32")
    dynamic = config.get("dynamic") or {}
    if not isinstance(dynamic, Mapping):
        raise CheckpointError(f"quantization_config: dynamic={dynamic!r}; it must map modules to their options")
    for options in dynamic.values():
        if isinstance(options, Mapping) and options:
            refuse(options, "adapter")
    return StoredQuantization(
        method="gptq",
        layout="gptq_v2" if stored == "gptq_v2" else "gptq",
        bits=expect(config, "bits", _BITS),
        group_size=group_size_of(config.get("group_size", WHOLE_ROW)),
        symmetric=flag(config, "sym", True),
        overrides=bool(dynamic),
    )


def _awq(config: Mapping[str, Any]) -> StoredQuantization:
    version = config.get("version", config.get("checkpoint_format", "gemm"))
    if not isinstance(version, str) or version.lower() != "gemm":
        raise UnsupportedModelError(f"AWQ with version={version!r} is not supported; ramify reads the gemm layout")
    names = {"bits": "w_bit", "group_size": "q_group_size"}
    known = {**{new: config[old] for new, old in names.items() if old in config}, **config}
    return StoredQuantization(
        method="awq",
        layout="awq",
        bits=expect(known, "bits", (4,), 4),
        group_size=group_size_of(known.get("group_size", 128)),
        symmetric=not flag(config, "zero_point", True),
    )


def _fp8(config: Mapping[str, Any]) -> StoredQuantization:
    expect(config, "fmt", ("e4m3",), "e4m3")
    expect(config, "activation_scheme", ("dynamic", "static"), "dynamic")
    return StoredQuantization(
        method=str(config["quant_method"]),
        layout="float8",
        bits=8,
        block=block_of(config.get("weight_block_size"), "weight_block_size"),
    )


def _ramify(config: Mapping[str, Any]) -> StoredQuantization:
    """What `ramify quantize` writes; the weights' file says the rest."""
    if not isinstance(config.get("format"), str):
        raise CheckpointError(f"quantization_config: format={config.get('format')!r}; it must be a name such as 'w4a8'")
    return StoredQuantization("ramify", "ramify")


_METHODS: Mapping[str, Callable[[Mapping[str, Any]], StoredQuantization]] = {
    "gptq": _gptq,
    "awq": _awq,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "compressed-tensors": parse_compressed,
    "ramify": _ramify,
}
