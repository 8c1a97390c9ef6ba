"""Tools in a chat: forced calls are held to their schemas, streams add up, and calls can stand in the history."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI

SMALL = {"type": "integer", "minimum": 0, "maximum": 99}
SCHEMA = {"type": "object", "properties": {"a": SMALL, "b": SMALL}, "required": ["a", "b"]}
TOOLS: Any = [
    {"type": "function", "function": {"name": "add", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
QUESTION: Any = [{"role": "user", "content": "Add 12 and 7."}]


def ask(client: OpenAI, **options: Any) -> Any:
    given = {"model": "nano", "messages": QUESTION, "tools": TOOLS, "seed": 3, "max_tokens": 90, **options}
    return client.chat.completions.create(**given)


def test_a_named_function_is_called_in_a_stream_as_in_the_whole_answer(client: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "add"}}
    whole = ask(client, tool_choice=choice).choices[0]
    [call] = whole.message.tool_calls
    assert (call.function.name, whole.finish_reason, whole.message.content) == ("add", "tool_calls", None)
    assert set(json.loads(call.function.arguments)) == {"a", "b"}
    names, arguments, reasons = "", "", []
    for chunk in ask(client, tool_choice=choice, stream=True):
        reasons.append(chunk.choices[0].finish_reason)
        for delta in chunk.choices[0].delta.tool_calls or ():
            names += delta.function.name or ""
            arguments += delta.function.arguments
    assert (names, arguments, reasons[-1]) == ("add", call.function.arguments, "tool_calls")


def test_an_answer_that_may_be_text_is_text(client: OpenAI) -> None:
    assert ask(client, tool_choice="none", max_tokens=4).choices[0].message.tool_calls is None
    assert ask(client, max_tokens=4).choices[0].message.content


def test_calls_and_results_may_stand_in_the_history(client: OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 12, "b": 7}'}}
    history = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "19"},
    ]
    assert ask(client, messages=history, max_tokens=4).usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "sub"}}}, "'sub'"),
        ({"tool_choice": "required", "tools": []}, "no tools"),
        ({"tools": TOOLS[:1] * 2}, "two tools"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "choose one"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0"),
    ],
)
def test_tools_that_cannot_work_are_refused(client: OpenAI, options: dict[str, Any], told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told):
        ask(client, **options)
