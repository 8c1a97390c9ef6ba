"""Items become the messages of a chat: what a model gave in one turn is one message."""

from __future__ import annotations

from typing import Any

from ramify.serving.protocol.responses import ResponseRequest
from ramify.serving.responses.items import given_items, messages_of


def messages(items: list[dict[str, Any]], instructions: str | None = None) -> list[dict[str, Any]]:
    return messages_of(
        given_items(ResponseRequest.model_validate({"model": "nano", "input": items}).input), instructions
    )


def test_a_turn_of_thought_text_and_calls_is_one_message() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'}
    told = messages(
        [
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "So", "annotations": []}]},
            call,
            {**call, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        ],
        "Be brief.",
    )
    assert [message["role"] for message in told] == ["system", "user", "assistant", "tool", "tool"]
    turn = told[2]
    assert turn["reasoning_content"] == "Hm"
    assert turn["content"][0]["text"] == "So"
    assert [each["id"] for each in turn["tool_calls"]] == ["c1", "c2"]
    assert told[3] == {"role": "tool", "tool_call_id": "c1", "content": "1", "name": "add"}


def test_a_thought_begins_a_new_message_and_so_does_a_second_text() -> None:
    text = {"role": "assistant", "content": "a"}
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}
    assert len(messages([text, text])) == 2
    told = messages([text, thought, text])
    assert [sorted(message) for message in told] == [["content", "role"], ["content", "reasoning_content", "role"]]


def test_items_are_listed_with_ids_and_parts() -> None:
    [item] = given_items("hi")
    assert item["id"].startswith("msg_")
    assert item["content"] == [{"type": "input_text", "text": "hi"}]
    [item] = given_items(
        ResponseRequest.model_validate(
            {"model": "nano", "input": [{"id": "mine", "role": "user", "content": "x"}]}
        ).input
    )
    assert item["id"] == "mine"
