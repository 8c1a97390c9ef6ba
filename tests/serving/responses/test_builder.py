"""The chat's deltas become typed events that OpenAI's types accept, and an object that they add up to."""

from __future__ import annotations

from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from ramify.serving.protocol.responses import ResponseRequest
from ramify.serving.responses.builder import Event, ResponseBuilder
from ramify.serving.responses.request import new_response

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 5,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def builder() -> ResponseBuilder:
    return ResponseBuilder(new_response(ResponseRequest(model="nano", input="x"), "resp_1", "nano"))


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]}


def call(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"index": index, "id": f"call_{index}", "type": "function", "function": function}


def grown(chunks: list[dict[str, Any]]) -> tuple[ResponseBuilder, list[Event]]:
    made = builder()
    events = made.begin()
    for each in chunks:
        events += made.feed(each)
    return made, events


def test_thought_text_and_calls_are_items_of_their_own() -> None:
    made, events = grown(
        [
            chunk(role="assistant", content=""),
            chunk(reasoning_content="Hm"),
            chunk(reasoning_content="."),
            chunk(content="So"),
            chunk(content=": "),
            chunk(tool_calls=[call(0, '{"a"', "add")]),
            chunk(tool_calls=[call(0, ": 1}")]),
            chunk(tool_calls=[call(1, "{}", "now")]),
            chunk("tool_calls"),
            {"choices": [], "usage": USAGE},
        ]
    )
    events += made.finish()
    for place, event in enumerate(events):
        assert event["sequence_number"] == place
        EVENTS.validate_python(event)
    response = Response.model_validate(made.response)
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
    assert response.output[0].content[0].text == "Hm."
    assert response.output_text == "So: "
    assert [item.arguments for item in response.output[2:]] == ['{"a": 1}', "{}"]
    assert {item.status for item in response.output} == {"completed"}
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert response.usage.output_tokens_details.reasoning_tokens == 3
    for kind, wanted in (
        ("response.reasoning_text.delta", "Hm."),
        ("response.output_text.delta", "So: "),
        ("response.function_call_arguments.delta", '{"a": 1}{}'),
    ):
        assert "".join(event["delta"] for event in events if event["type"] == kind) == wanted
    opened = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    closed = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    assert opened == closed == [item.id for item in response.output]


def test_events_that_were_given_do_not_change_later() -> None:
    made, events = grown([chunk(content="a")])
    before = EVENTS.dump_json(EVENTS.validate_python(events[2]))
    made.feed(chunk(content="b"))
    made.finish()
    assert EVENTS.dump_json(EVENTS.validate_python(events[2])) == before
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []


def test_an_answer_of_no_words_is_a_message() -> None:
    made, _ = grown([chunk("stop")])
    made.finish()
    assert Response.model_validate(made.response).output_text == ""
    assert made.response["output"][0]["status"] == "completed"


def test_what_fails_or_is_cancelled_keeps_what_came() -> None:
    made, _ = grown([chunk(content="half")])
    [event] = made.fail("server_error", "it broke")
    EVENTS.validate_python(event)
    assert made.response["error"] == {"code": "server_error", "message": "it broke"}
    assert made.response["output"][0]["status"] == "incomplete"
    assert made.response["output"][0]["content"][0]["text"] == "half"
    other, _ = grown([chunk(tool_calls=[call(0, '{"a', "add")])])
    other.cancel()
    assert Response.model_validate(other.response).status == "cancelled"
    assert other.response["output"][0]["arguments"] == '{"a'


def test_a_look_in_between_shows_what_is_there() -> None:
    made, _ = grown([chunk(content="ha")])
    assert made.snapshot()["output"][0]["content"][0]["text"] == "ha"
    made.feed(chunk(content="lf"))
    assert made.snapshot()["output"][0]["content"][0]["text"] == "half"


def test_progress_of_a_method_and_its_result_are_told() -> None:
    made, _ = grown([])
    [event] = made.feed({"choices": [], "ramify": {"events": [{"type": "start"}]}})
    assert event["type"] == "response.ramify.progress"
    made.feed({"choices": [], "ramify": {"strategy": "best-of-n"}})
    assert made.response["ramify"] == {"strategy": "best-of-n"}
