"""Items of the Responses API as the messages of a chat, and back to what clients list."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ramify.serving.protocol.responses import InputItem

Item = dict[str, Any]
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}


def item_id(kind: str) -> str:
    """A fresh id for an item of a type."""
    return f"{_PREFIXES[kind]}_{secrets.token_hex(16)}"


def given_items(given: str | Sequence[InputItem]) -> list[Item]:
    """A request's input as the items that are stored and listed: with ids, texts as parts."""
    if isinstance(given, str):
        return [_message("user", given)]
    return [_listed(item.model_dump(exclude_none=True)) for item in given]


def messages_of(items: Iterable[Mapping[str, Any]], instructions: str | None) -> list[dict[str, Any]]:
    """The conversation that items stand for.

    What a model gave in one turn (thoughts, text, calls) is one message, as its chat template expects.

    Args:
        items: in order, those of earlier turns first.
        instructions: the system message in front.
    """
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    turn: dict[str, Any] | None = None  # the assistant's message that may still grow
    for item in items:
        kind = item["type"]
        if kind == "function_call_output":
            output = item["output"]
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})
            turn = None
        elif kind == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": item["content"]})
            turn = None
        else:
            if turn is None or not _may_grow(turn, kind):
                turn = {"role": "assistant"}
                messages.append(turn)
            _grow(turn, item)
    _name_tools(messages)
    return messages


def _may_grow(turn: Mapping[str, Any], kind: str) -> bool:
    """Whether an item belongs to the message before it: thoughts, then text, then calls."""
    if kind == "reasoning":
        return not turn.keys() & {"content", "tool_calls"}
    return kind == "function_call" or not turn.keys() & {"content", "tool_calls"}


def _grow(turn: dict[str, Any], item: Mapping[str, Any]) -> None:
    if item["type"] == "reasoning":
        parts = item.get("content") or item.get("summary") or ()
        text = "\n".join(part["text"] for part in parts)
        turn["reasoning_content"] = "\n".join(filter(None, [turn.get("reasoning_content"), text]))
    elif item["type"] == "message":
        turn["content"] = item["content"]
    else:
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        turn.setdefault("tool_calls", []).append(call)


def _name_tools(messages: list[dict[str, Any]]) -> None:
    """Results say whose they are, for templates that want the function's name."""
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls", ())}
    for message in messages:
        if message["role"] == "tool" and message["tool_call_id"] in names:
            message["name"] = names[message["tool_call_id"]]


def _message(role: str, text: str) -> Item:
    kind = "output_text" if role == "assistant" else "input_text"
    part: Item = {"type": kind, "text": text}
    if role == "assistant":
        part |= {"annotations": [], "logprobs": []}
    return {"id": item_id("message"), "type": "message", "role": role, "status": "completed", "content": [part]}


def _listed(item: Item) -> Item:
    """An item with what the API's lists promise of it."""
    kind = item["type"]
    listed = {"id": item_id(kind), "status": "completed", **item}
    if kind == "message" and isinstance(item["content"], str):
        listed["content"] = _message(item["role"], item["content"])["content"]
    return listed
