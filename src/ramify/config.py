"""`EngineConfig`: every option of the engine, in one place, with vLLM's names where the meaning is the same."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from ramify.errors import ConfigError

DTypeName = Literal["auto", "float32", "bfloat16"]
KVCacheDTypeName = Literal["auto", "float32", "bfloat16", "int8"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Options of one engine. Immutable; validated when made.

    Attributes:
        dtype: of weights: "auto" takes the checkpoint's (float16 becomes bfloat16 on a CPU).
        device: "auto" takes CUDA where there is one.
        max_model_len: context length in tokens; None takes the model's own.
        max_num_seqs: sequences that run in one step at most.
        max_num_batched_tokens: rows of one step at most: running decodes first, prompt chunks fill the rest.
        block_size: tokens of one KV block.
        num_kv_blocks: size of the KV pool, and of each one where several models are loaded together; None sizes it
            from free memory and never beyond what the limits can use.
        kv_cache_dtype: of keys and values: "auto" takes `dtype`'s; "int8" halves bfloat16's memory and is approximate.
        gpu_memory_utilization: share of the free memory that the KV pools of models loaded together may take; None
            means 0.9 on CUDA and 0.5 on a CPU, where other programs live too.
        enable_prefix_caching: reuse the KV of known prefixes.
        scheduling_policy: a registered one: "fcfs", or "priority" (lower `priority` first).
        seed: of the engine: requests without a seed of their own draw from it.
        num_threads: intra-op threads of torch in this process; None leaves torch's setting.
        revision: of a hub id.
        quantization: format that the weights are loaded in: None takes them as they are stored; "bfloat16", "w8a8",
            "w8a16", "w6a8", "w4a8" or "w4a16" round them, with options as in "w4a8:group_size=64" (`ramify
            techniques`).

    Raises:
        ConfigError: a value cannot work.
    """

    dtype: DTypeName = "auto"
    device: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    num_kv_blocks: int | None = None
    kv_cache_dtype: KVCacheDTypeName = "auto"
    gpu_memory_utilization: float | None = None
    enable_prefix_caching: bool = True
    scheduling_policy: str = "fcfs"
    seed: int = 0
    num_threads: int | None = None
    revision: str | None = None
    quantization: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"dtype={self.dtype!r} does not work: use 'auto', 'float32' or 'bfloat16'")
        if self.kv_cache_dtype not in ("auto", "float32", "bfloat16", "int8"):
            raise ConfigError(
                f"kv_cache_dtype={self.kv_cache_dtype!r} does not work: use 'auto', 'float32', 'bfloat16' or 'int8'"
            )
        for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "num_kv_blocks", "num_threads"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name}={value!r} does not work: it must be an integer of 1 or more")
        if self.quantization is not None and (not isinstance(self.quantization, str) or not self.quantization.strip()):
            raise ConfigError(f"quantization={self.quantization!r} does not work: use None or a format such as 'w4a8'")
        if self.block_size not in (8, 16, 32, 64):
            raise ConfigError(f"block_size={self.block_size!r} does not work: use 8, 16, 32 or 64")
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"gpu_memory_utilization={share!r} does not work: it must be in (0, 1]")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} is less than max_num_seqs={self.max_num_seqs}: "
                "a step could not hold one row of every running sequence; raise the first or lower the second"
            )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> EngineConfig:
        """A configuration from keyword options, as `LLM(model, **options)` takes them.

        Raises:
            ConfigError: an option is unknown (the closest name is suggested) or asks for what this engine lacks.
        """
        names = {field.name for field in fields(cls)}
        known: dict[str, Any] = {}
        for name, value in options.items():
            if name in names:
                known[name] = value
            elif name in _SAME_MEANING:
                if value not in _SAME_MEANING[name]:
                    raise ConfigError(f"{name}={value!r} is not supported: leave it out ({_WHY[name]})")
            else:
                close = difflib.get_close_matches(name, [*names, *_SAME_MEANING], n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; the options are {', '.join(sorted(names))}"
                raise ConfigError(f"unknown engine option {name!r}{hint}")
        return cls(**known)


# Options of other engines whose listed values say what ramify does anyway.
_SAME_MEANING: dict[str, tuple[Any, ...]] = {
    "tensor_parallel_size": (1,),
    "pipeline_parallel_size": (1,),
    "trust_remote_code": (False,),
    "enforce_eager": (True, False),
    "enable_chunked_prefill": (True, None),
    "disable_log_stats": (True, False),
}
_WHY = {
    "tensor_parallel_size": "one device runs the model",
    "pipeline_parallel_size": "one device runs the model",
    "trust_remote_code": "code from a checkpoint is never run",
    "enforce_eager": "it takes a boolean",
    "enable_chunked_prefill": "prompts are always chunked; set max_num_batched_tokens to change the chunk",
    "disable_log_stats": "it takes a boolean",
}
