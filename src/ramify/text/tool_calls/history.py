"""Earlier calls and their results in a conversation, in the form that a model's chat template takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ramify.errors import RamifyError, RequestError
from ramify.sampling import Message
from ramify.text.chat_template import ChatTemplate
from ramify.text.tool_calls.base import Tool
from ramify.text.tool_calls.families.generic import describe_tools

_PROBE_KEY, _PROBE_VALUE = "probekey", "probevalue"


def for_template(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool], *, knows_tools: bool, objects: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """(messages, tools) for a chat template.

    Args:
        messages: in OpenAI's form, content as text.
        tools: of the request.
        knows_tools: the template takes tools; otherwise they are described in the messages.
        objects: the template wants arguments as objects rather than as JSON text.

    Raises:
        RequestError: a call in the conversation has arguments that are no JSON object.
    """
    read = [_with_arguments(message, place) for place, message in enumerate(messages)]
    if not knows_tools:
        return describe_tools(read, tools), None
    return [_for_template(message, objects) for message in read], [tool.as_openai() for tool in tools] or None


def takes_objects(template: ChatTemplate) -> bool:
    """Whether a template writes arguments as JSON by itself; seen from what it makes of them either way."""
    if _writes(template, {_PROBE_KEY: _PROBE_VALUE}):
        return True
    return not _writes(template, json.dumps({_PROBE_KEY: _PROBE_VALUE}))


def _writes(template: ChatTemplate, arguments: Any) -> bool:
    """Whether arguments come out of a template, and not as Python would show them."""
    call = {"type": "function", "id": "probe0000", "function": {"name": "probe", "arguments": arguments}}
    messages: list[Message] = [
        {"role": "user", "content": "probe"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "probe", "name": "probe", "tool_call_id": "probe0000"},
    ]
    try:
        text = template.render(messages, tools=[Tool("probe").as_openai()])
    except RamifyError:
        return False
    return _PROBE_KEY in text and f"'{_PROBE_KEY}'" not in text


def _with_arguments(message: Mapping[str, Any], place: int) -> dict[str, Any]:
    """A message whose calls have their arguments as objects."""
    if not message.get("tool_calls"):
        return dict(message)
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        given = function.get("arguments")
        try:
            arguments = json.loads(given or "{}") if isinstance(given, str | None) else given
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, Mapping):
            raise RequestError(
                f"messages.{place}: the call of {function['name']!r} has arguments that are no JSON object: send back "
                "what the model gave"
            )
        calls.append({**call, "function": {**function, "arguments": arguments}})
    return {**message, "content": message.get("content") or "", "tool_calls": calls}


def _for_template(message: dict[str, Any], objects: bool) -> dict[str, Any]:
    if objects or not message.get("tool_calls"):
        return message
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}
