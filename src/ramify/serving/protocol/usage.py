"""Token counts in OpenAI's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ramify.engine.outputs import RequestOutput


def usage(prompt: int, completion: int, cached: int, reasoning: int = 0) -> dict[str, Any]:
    """Counts as the API gives them."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def usage_of(*outputs: RequestOutput) -> dict[str, Any]:
    """The counts of requests together."""
    return usage(
        sum(len(output.prompt_token_ids) for output in outputs),
        sum(len(answer.token_ids) for output in outputs for answer in output.outputs),
        sum(output.num_cached_tokens for output in outputs),
    )
