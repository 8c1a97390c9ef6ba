"""The server's own limits on a request, below the bounds of its types."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ramify.serving.errors import ApiError
from ramify.serving.limits import Limits
from ramify.serving.protocol.base import SamplingFields
from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.protocol.completions import CompletionRequest


def check_bounds(body: ChatRequest | CompletionRequest, limits: Limits) -> None:
    """Refuse what passes a limit.

    Raises:
        ApiError: 400, with the field, its value and the limit.
    """
    for name, value, limit in (*_of_any(body, limits), *_of_each(body, limits)):
        if value > limit:
            raise ApiError(400, f"{name} is {value:,} and this server allows {limit:,} at most", param=name.split()[-1])


def _of_any(body: SamplingFields, limits: Limits) -> Iterable[tuple[str, int, int]]:
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    yield "the number of strings in stop", len(stops), limits.max_stop
    yield "the number of ids in stop_token_ids", len(body.stop_token_ids or ()), limits.max_stop
    longest = max((len(stop.encode(errors="replace")) for stop in stops), default=0)
    yield "the number of bytes in a string of stop", longest, limits.max_stop_bytes
    yield "the number of entries in logit_bias", len(body.logit_bias or ()), limits.max_logit_bias
    yield "the number of entries in metadata", len(body.metadata or ()), limits.max_metadata
    yield "prompt_logprobs", body.prompt_logprobs or 0, limits.max_logprobs
    yield "min_tokens", body.min_tokens or 0, limits.max_tokens


def _of_each(body: ChatRequest | CompletionRequest, limits: Limits) -> Iterable[tuple[str, int, int]]:
    yield "max_tokens", body.max_tokens or 0, limits.max_tokens
    if isinstance(body, ChatRequest):
        yield "max_completion_tokens", body.max_completion_tokens or 0, limits.max_tokens
        yield "top_logprobs", body.top_logprobs or 0, limits.max_logprobs
        yield "n", body.n or 1, limits.max_n
        yield "the number of messages", len(body.messages), limits.max_messages
        yield "the number of tools", len(body.tools or ()), limits.max_tools
        yield "the number of bytes in tools", _json_bytes(body.tools), limits.max_tools_bytes
    else:
        prompts = len(body.prompts())
        yield "logprobs", body.logprobs or 0, limits.max_logprobs
        yield "the number of texts or lists of ids in prompt", prompts, limits.max_inputs
        yield "n", body.n or 1, limits.max_n
        yield "best_of", body.best_of or 1, limits.max_n
        answers = max(body.n or 1, body.best_of or 1)
        if answers > 1:
            yield "the number of prompts times n", prompts * answers, limits.max_inputs


def _json_bytes(tools: Any) -> int:
    return len(json.dumps([tool.model_dump() for tool in tools])) if tools else 0
