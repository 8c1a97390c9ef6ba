"""OpenAI bodies become sampling parameters; what is not supported is refused by name."""

from typing import Any

import pytest

from ramify.cli.openai_format import CHAT, TEXT, read_request, response_body
from ramify.engine.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput
from ramify.errors import RequestError, SamplingParamsError

MESSAGES = [{"role": "user", "content": "1+1?"}]


def chat(**body: Any) -> Any:
    return read_request(CHAT, {"model": "nano", "messages": MESSAGES, **body})


def test_a_chat_body_becomes_messages_and_sampling_parameters() -> None:
    request = chat(temperature=0.5, top_p=0.9, n=2, stop=["\n"], seed=7, logit_bias={"5": -10}, user="me", stream=False)
    assert request.prompt == MESSAGES
    params = request.params
    assert (params.temperature, params.top_p, params.n, params.stop_strings, params.seed) == (0.5, 0.9, 2, ("\n",), 7)
    assert params.logit_bias == {5: -10.0}
    assert params.logprobs is None


def test_the_limits_are_openais() -> None:
    assert chat().params.max_tokens is None
    assert chat(max_tokens=5).params.max_tokens == 5
    assert chat(max_completion_tokens=6).params.max_tokens == 6
    assert read_request(TEXT, {"prompt": "a"}).params.max_tokens == 16


def test_logprobs_are_asked_for_in_the_way_of_each_endpoint() -> None:
    assert chat(logprobs=True).params.logprobs == 0
    assert chat(logprobs=True, top_logprobs=3).params.logprobs == 3
    assert read_request(TEXT, {"prompt": [1, 2], "logprobs": 2}).params.logprobs == 2
    with pytest.raises(RequestError, match="needs 'logprobs'"):
        chat(top_logprobs=3)
    with pytest.raises(RequestError, match="number of alternatives"):
        read_request(TEXT, {"prompt": "a", "logprobs": True})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"tools": [{"type": "function"}]}, "tools=.* is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format=.* is not supported"),
        ({"stream": True}, "stream=True"),
        ({"reasoning_effort": "high"}, "'reasoning_effort' is not supported"),
        ({"messages": "hello"}, "'messages' must be a list"),
        ({"messages": []}, "no 'messages'"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"stop": 5}, "wrong type"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(body: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        chat(**body)


def test_a_value_out_of_range_is_an_error_that_names_it() -> None:
    with pytest.raises(SamplingParamsError, match="temperature=-1"):
        chat(temperature=-1)
    with pytest.raises(RequestError, match="url '/v1/embeddings'"):
        read_request("/v1/embeddings", {"input": "a"})
    with pytest.raises(RequestError, match="one text or one list"):
        read_request(TEXT, {"prompt": ["a", "b"]})


def output() -> RequestOutput:
    position = {7: Logprob(-0.5, 1, "hi"), 8: Logprob(-1.5, 2, "ho")}
    completion = CompletionOutput(0, "hi", [7], -0.5, [position], "stop", None)
    return RequestOutput("r1", None, (1, 2, 3), [completion], RequestMetrics(0.0), finished=True)


def test_an_output_becomes_a_chat_completion() -> None:
    body = response_body(chat(logprobs=True, top_logprobs=2), output(), "nano", 99)
    assert body["object"] == "chat.completion"
    assert body["usage"]["total_tokens"] == 4
    [choice] = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "hi", "refusal": None}
    assert choice["finish_reason"] == "stop"
    [entry] = choice["logprobs"]["content"]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("hi", -0.5, [104, 105])
    assert [each["token"] for each in entry["top_logprobs"]] == ["hi", "ho"]


def test_an_output_becomes_a_text_completion() -> None:
    body = response_body(read_request(TEXT, {"prompt": "a", "logprobs": 1}), output(), "nano", 99)
    [choice] = body["choices"]
    assert (body["object"], choice["text"]) == ("text_completion", "hi")
    assert choice["logprobs"]["tokens"] == ["hi"]
    assert choice["logprobs"]["text_offset"] == [0]
    assert choice["logprobs"]["top_logprobs"] == [{"hi": -0.5, "ho": -1.5}]
