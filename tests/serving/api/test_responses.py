"""``/v1/responses`` by OpenAI's own client: whole, streamed, stored, in the background."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel

QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
ADD: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["a"],
        "additionalProperties": False,
    },
    "strict": True,
}


def ask(client: OpenAI, **given: Any) -> Response:
    response: Response = client.responses.create(**{"model": "nano", "input": QUESTION, "temperature": 0, **given})
    return response


def wait(client: OpenAI, response: Response) -> Response:
    while response.status in ("queued", "in_progress"):
        time.sleep(0.02)
        response = client.responses.retrieve(response.id)
    return response


def test_a_response_is_the_chats_answer(client: OpenAI) -> None:
    response = ask(client, metadata={"a": "b"})
    chat = client.chat.completions.create(model="nano", messages=[{"role": "user", "content": QUESTION}], temperature=0)
    assert response.output_text == chat.choices[0].message.content != ""
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert response.metadata == {"a": "b"}
    assert response.usage is not None
    assert chat.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (
        chat.usage.prompt_tokens,
        chat.usage.completion_tokens,
    )
    assert client.responses.retrieve(response.id) == response


def test_a_stream_has_every_event_in_order_and_adds_up(client: OpenAI) -> None:
    whole = ask(client)
    events = list(client.responses.create(model="nano", input=QUESTION, temperature=0, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events if event.type != "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == whole.output_text


def test_the_clients_own_stream_helper_reads_it(client: OpenAI) -> None:
    with client.responses.stream(model="nano", input=QUESTION, temperature=0) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                assert event.snapshot.endswith(event.delta)
        final = stream.get_final_response()
    assert final.output_text == ask(client).output_text
    assert client.responses.retrieve(final.id).output_text == final.output_text


async def test_the_asynchronous_client_reads_it_too(url: str) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        whole = await client.responses.create(model="nano", input=QUESTION, temperature=0)
        async with client.responses.stream(model="nano", input=QUESTION, temperature=0) as stream:
            assert (await stream.get_final_response()).output_text == whole.output_text


def test_a_conversation_goes_on_over_several_turns(client: OpenAI) -> None:
    first = ask(client, instructions="Be brief.", max_output_tokens=8)
    second = ask(client, input="Again.", previous_response_id=first.id, max_output_tokens=8)
    third = ask(client, input=[{"role": "user", "content": "And again."}], previous_response_id=second.id)
    chat = client.chat.completions.create(
        model="nano",
        temperature=0,
        messages=[
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "Again."},
            {"role": "assistant", "content": second.output_text},
            {"role": "user", "content": "And again."},
        ],
    )
    assert third.output_text == chat.choices[0].message.content
    items = list(client.responses.input_items.list(third.id, order="asc", limit=2))
    assert [getattr(item, "role", None) for item in items] == ["user", "assistant", "user", "assistant", "user"]
    latest = client.responses.input_items.list(third.id, limit=1)
    assert latest.data[0].id == items[-1].id
    assert latest.has_more


def test_an_answer_that_the_limit_cuts_is_incomplete(client: OpenAI) -> None:
    response = ask(client, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"
    events = list(client.responses.create(model="nano", input=QUESTION, max_output_tokens=3, stream=True))
    assert events[-1].type == "response.incomplete"


def test_logprobs_come_with_the_text(client: OpenAI) -> None:
    response = ask(client, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=5)
    part = response.output[0].content[0]
    assert "".join(entry.token for entry in part.logprobs).startswith(part.text)
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
    assert len(part.logprobs) == 5


def test_a_call_is_forced_given_and_answered(client: OpenAI) -> None:
    response = ask(client, input="add", tools=[ADD], tool_choice="required", parallel_tool_calls=False)
    call = response.output[0]
    assert isinstance(call, ResponseFunctionToolCall)
    assert call.name == "add"
    assert 0 <= json.loads(call.arguments)["a"] <= 9
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12"}
    following = ask(client, input=[result], previous_response_id=response.id, max_output_tokens=5)
    by_hand = ask(
        client,
        input=[
            {"role": "user", "content": "add"},
            {"type": "function_call", "call_id": call.call_id, "name": "add", "arguments": call.arguments},
            result,
        ],
        max_output_tokens=5,
    )
    assert following.output_text == by_hand.output_text
    kinds = [item.type for item in client.responses.input_items.list(following.id, order="asc")]
    assert kinds == ["message", "function_call", "function_call_output"]


def test_a_streamed_call_has_its_events(client: OpenAI) -> None:
    choice = {"type": "function", "name": "add"}
    events = list(client.responses.create(model="nano", input="add", tools=[ADD], tool_choice=choice, stream=True))
    kinds = [event.type for event in events]
    assert kinds[2] == "response.output_item.added"
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    deltas = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert deltas == events[-3].arguments == events[-1].response.output[0].arguments


def test_the_text_can_be_held_to_a_schema(client: OpenAI) -> None:
    class Answer(BaseModel):
        ok: bool

    parsed = client.responses.parse(model="nano", input=QUESTION, text_format=Answer)
    assert isinstance(parsed.output_parsed, Answer)
    text = {"format": {"type": "json_schema", "name": "answer", "schema": Answer.model_json_schema()}}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]}
    either = ask(client, text=text, tools=[ADD], tool_choice=allowed)
    assert either.output[0].type == "function_call" or "ok" in json.loads(either.output_text)


def test_a_response_in_the_background_goes_on_by_itself(client: OpenAI) -> None:
    begun = ask(client, background=True)
    assert begun.status == "queued"
    assert begun.background
    ended = wait(client, begun)
    assert (ended.status, ended.output_text) == ("completed", ask(client).output_text)
    assert client.responses.cancel(begun.id).status == "completed"


def test_the_stream_of_a_background_response_can_be_taken_up_again(client: OpenAI) -> None:
    stream = client.responses.create(model="nano", input=QUESTION, temperature=0, background=True, stream=True)
    first = next(iter(stream))
    stream.close()
    wait(client, first.response)
    events = list(client.responses.retrieve(first.response.id, stream=True, starting_after=0))
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
    assert events[0].type == "response.queued"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == ask(client).output_text


def test_a_background_response_can_be_cancelled_and_deleted(client: OpenAI) -> None:
    many = {"background": True, "extra_body": {"text": {"format": {"type": "json_object"}}}}
    begun = ask(client, temperature=2, **many)
    cancelled = client.responses.cancel(begun.id)
    assert cancelled.status in ("cancelled", "completed", "incomplete")
    assert client.responses.retrieve(begun.id).status == cancelled.status
    other = ask(client, **many)
    client.responses.delete(other.id)
    for response_id in (other.id, "resp_none", "no id"):
        with pytest.raises(NotFoundError):
            client.responses.retrieve(response_id)
    with pytest.raises(NotFoundError):
        client.responses.delete(other.id)


def test_what_is_not_stored_cannot_be_gone_on_from(client: OpenAI) -> None:
    response = ask(client, store=False, max_output_tokens=2)
    for action in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(NotFoundError):
            action(response.id)
    with pytest.raises(NotFoundError, match=response.id):
        ask(client, previous_response_id=response.id)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"background": True, "store": False}, "stored"),
        ({"reasoning": {"effort": "low"}}, "does not reason"),
        ({"reasoning": {"summary": "detailed"}}, "summary"),
        ({"text": {"verbosity": "low"}}, "verbosity"),
        ({"extra_body": {"unknown": 1}}, "unknown"),
        ({"input": []}, "input"),
        ({"input": [{"type": "computer_call_output"}]}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]},
            "read text only",
        ),
        ({"tools": [ADD], "tool_choice": {"type": "function", "name": "no"}}, "no"),
        ({"tools": [ADD, ADD]}, "one name"),
        ({"background": True, "input": "word " * 600}, "tokens"),
        ({"stream": True, "input": "word " * 600}, "tokens"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client: OpenAI, given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        ask(client, **given)


def test_a_method_answers_here_too(client: OpenAI) -> None:
    budget = {"ramify": {"strategy": "best-of-n:n=2", "budget": 200, "scorer": "logprob"}}
    response = ask(client, temperature=1, extra_body=budget)
    assert response.status == "completed"
    assert response.model_extra is not None
    assert response.model_extra["ramify"]["num_candidates"] == 2
