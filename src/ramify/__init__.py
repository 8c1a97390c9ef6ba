"""ramify: an inference engine for language models, and the inference-time methods that turn compute into answers.

The names below are loaded when they are first used, so that importing the package is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ramify.config import EngineConfig
    from ramify.engine.async_llm import AsyncLLM
    from ramify.engine.outputs import CompletionOutput, Logprob, RequestOutput
    from ramify.errors import RamifyError
    from ramify.llm import LLM
    from ramify.sampling import SamplingParams, StructuredOutputsParams
    from ramify.scoring.problem import Problem
    from ramify.strategies.kernel.budget import Budget
    from ramify.strategies.kernel.result import Result

__version__ = "0.1.0"

_HOMES = {
    "AsyncLLM": "ramify.engine.async_llm",
    "Budget": "ramify.strategies.kernel.budget",
    "CompletionOutput": "ramify.engine.outputs",
    "EngineConfig": "ramify.config",
    "LLM": "ramify.llm",
    "Logprob": "ramify.engine.outputs",
    "Problem": "ramify.scoring.problem",
    "RamifyError": "ramify.errors",
    "RequestOutput": "ramify.engine.outputs",
    "Result": "ramify.strategies.kernel.result",
    "SamplingParams": "ramify.sampling",
    "StructuredOutputsParams": "ramify.sampling",
}
__all__ = [
    "LLM",
    "AsyncLLM",
    "Budget",
    "CompletionOutput",
    "EngineConfig",
    "Logprob",
    "Problem",
    "RamifyError",
    "RequestOutput",
    "Result",
    "SamplingParams",
    "StructuredOutputsParams",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ramify' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
