"""A response's request as the chat request that answers it, and as the first state of the response object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.protocol.responses import AllowedTools, JsonObject, JsonSchema, NamedTool, ResponseRequest
from ramify.serving.responses.items import Item, messages_of

_SAME_NAME = (
    "model",
    "temperature",
    "top_p",
    "seed",
    "parallel_tool_calls",
    "priority",
    "cache_salt",
    "timeout",
    "ramify",
    "prompt_cache_key",
    "safety_identifier",
    "user",
)


def chat_request(body: ResponseRequest, items: Sequence[Item]) -> dict[str, Any]:
    """The body of the chat request that answers, always as a stream.

    Args:
        body: of the response.
        items: the whole conversation.
    """
    given = body.model_dump(by_alias=True, exclude_none=True, include=set(_SAME_NAME))
    chat: dict[str, Any] = {
        **given,
        "messages": messages_of(items, body.instructions),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if body.max_output_tokens is not None:
        chat["max_completion_tokens"] = body.max_output_tokens
    if wants_logprobs(body):
        chat |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    if body.reasoning is not None and body.reasoning.effort is not None:
        chat["reasoning_effort"] = body.reasoning.effort
    return {**chat, **_tools(body), **_format(body)}


def read_chat_request(body: ResponseRequest, items: Sequence[Item]) -> ChatRequest:
    """The same, checked. Raises RequestValidationError with the names of the chat's fields."""
    from ramify.serving.dispatch import read  # which is made of what takes a Server

    return read(ChatRequest, chat_request(body, items))


def wants_logprobs(body: ResponseRequest) -> bool:
    """Whether the answer's tokens come with their log-probabilities."""
    return bool(body.include) or body.top_logprobs is not None


def _tools(body: ResponseRequest) -> dict[str, Any]:
    if not body.tools:
        return {} if body.tool_choice in (None, "none", "auto") else {"tool_choice": _choice(body.tool_choice)}
    allowed = {tool.name for tool in body.tools}
    if isinstance(body.tool_choice, AllowedTools):
        allowed = {tool.name for tool in body.tool_choice.tools}
    tools = [
        {"type": "function", "function": tool.model_dump(exclude_none=True, exclude={"type"})}
        for tool in body.tools
        if tool.name in allowed
    ]
    chosen = {} if body.tool_choice is None else {"tool_choice": _choice(body.tool_choice)}
    return {"tools": tools, **chosen}


def _choice(choice: str | NamedTool | AllowedTools | None) -> Any:
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode if isinstance(choice, AllowedTools) else choice


def _format(body: ResponseRequest) -> dict[str, Any]:
    form = body.text.format if body.text is not None else None
    if isinstance(form, JsonObject):
        return {"response_format": {"type": "json_object"}}
    if isinstance(form, JsonSchema):
        named = form.model_dump(by_alias=True, exclude_none=True, exclude={"type"})
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    return {}


def new_response(body: ResponseRequest, response_id: str, model: str) -> dict[str, Any]:
    """The response object before anything of its answer is there."""
    text = body.text.model_dump(by_alias=True, exclude_none=True) if body.text is not None else {}
    choice = body.tool_choice
    reasoning = body.reasoning
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued" if body.background else "in_progress",
        "background": bool(body.background),
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": None if reasoning is None else reasoning.effort, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.kept,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": choice.model_dump() if isinstance(choice, NamedTool | AllowedTools) else choice or "auto",
        "tools": [_shown_tool(tool.model_dump()) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }


def _shown_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {
        **tool,
        "parameters": tool["parameters"] or {"type": "object", "properties": {}},
        "strict": bool(tool["strict"]),
    }
