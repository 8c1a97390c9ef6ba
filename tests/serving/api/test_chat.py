"""Chat completions through OpenAI's own client: streams, seeds, log-probabilities, limits, errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from ramify import LLM, SamplingParams

PUZZLE = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
MESSAGES: Any = [{"role": "user", "content": PUZZLE}]


def ask(client: OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "nano", "messages": MESSAGES, "seed": 5, **options})


def streamed(client: OpenAI, **options: Any) -> tuple[list[Any], dict[int, str], dict[int, str | None]]:
    """All chunks, and the text and the finish reason of each choice."""
    chunks = list(ask(client, stream=True, **options))
    texts: dict[int, str] = {}
    reasons: dict[int, str | None] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    return chunks, texts, reasons


def test_an_answer_equals_a_local_one_of_the_same_seed_with_its_logprobs(client: OpenAI, local: LLM) -> None:
    answer = ask(client, n=2, max_tokens=12, logprobs=True, top_logprobs=3)
    params = SamplingParams(n=2, max_tokens=12, logprobs=3, seed=5)
    [expected] = local.chat(MESSAGES, params, use_tqdm=False)
    assert [choice.message.content for choice in answer.choices] == [output.text for output in expected.outputs]
    assert [choice.finish_reason for choice in answer.choices] == [output.finish_reason for output in expected.outputs]
    for choice, output in zip(answer.choices, expected.outputs, strict=True):
        told = choice.logprobs.content
        assert output.logprobs is not None
        drawn = [place[token] for token, place in zip(output.token_ids, output.logprobs, strict=True)]
        assert [entry.logprob for entry in told] == [entry.logprob for entry in drawn]
        assert [bytes(entry.bytes).decode() for entry in told] == [entry.decoded_token for entry in drawn]
        assert all(len(entry.top_logprobs) == 3 for entry in told)
        assert all(entry.top_logprobs[0].logprob >= entry.logprob for entry in told)
    assert answer.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert answer.usage.completion_tokens == sum(len(output.token_ids) for output in expected.outputs)


@pytest.mark.parametrize("options", [{"stop": ["28", "25"]}, {"logprobs": True, "top_logprobs": 2}])
def test_a_stream_adds_up_to_the_whole_answer(client: OpenAI, options: dict[str, Any]) -> None:
    options = {"n": 2, "max_tokens": 20, **options}
    whole = ask(client, **options)
    chunks, texts, reasons = streamed(client, **options)
    assert [texts[choice.index] for choice in whole.choices] == [choice.message.content for choice in whole.choices]
    assert [reasons[choice.index] for choice in whole.choices] == [choice.finish_reason for choice in whole.choices]
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", "assistant"]
    if "logprobs" in options:
        for choice in whole.choices:
            pieces = [
                entry
                for chunk in chunks
                for each in chunk.choices
                if each.index == choice.index and each.logprobs
                for entry in each.logprobs.content
            ]
            assert pieces == choice.logprobs.content


def test_a_stream_tells_usage_at_its_end_or_in_every_event(client: OpenAI) -> None:
    chunks, _, _ = streamed(client, max_tokens=6, stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    assert all(chunk.usage is None for chunk in chunks[:-1])
    chunks, _, _ = streamed(client, max_tokens=6, stream_options={"continuous_usage_stats": True})
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 6


def test_an_answer_is_the_same_alone_and_under_load(url: str) -> None:
    async def run() -> None:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            async def one(seed: int) -> str:
                options: dict[str, Any] = {"model": "nano", "messages": MESSAGES, "seed": seed, "max_tokens": 12}
                stream = await client.chat.completions.create(**options, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            alone = [await one(seed) for seed in range(3)]
            together = await asyncio.gather(*(one(seed) for seed in range(8)))
            assert together[:3] == alone
            assert len(set(together)) > 3

    asyncio.run(run())


def test_an_answer_goes_on_inside_the_last_message(client: OpenAI, local: LLM) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "7 * 4 ="}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    answer = ask(client, messages=messages, extra_body=options, max_tokens=12)
    [expected] = local.chat(messages, SamplingParams(max_tokens=12, seed=5), use_tqdm=False, **options)
    assert answer.choices[0].message.content == expected.outputs[0].text
    marked = [*MESSAGES, {"role": "assistant", "content": "7 * 4 =", "prefix": True}]
    assert ask(client, messages=marked, max_tokens=12).choices[0].message.content == expected.outputs[0].text


def test_vllms_fields_are_honoured(client: OpenAI, local: LLM) -> None:
    extra = {"top_k": 3, "min_tokens": 4, "stop_token_ids": [22], "return_token_ids": True, "prompt_logprobs": 1}
    answer = ask(client, max_tokens=20, extra_body=extra)
    params = SamplingParams(top_k=3, min_tokens=4, stop_token_ids=[22], max_tokens=20, seed=5, prompt_logprobs=1)
    [expected] = local.chat(MESSAGES, params, use_tqdm=False)
    assert answer.choices[0].message.content == expected.outputs[0].text
    assert answer.choices[0].token_ids == expected.outputs[0].token_ids
    assert answer.choices[0].stop_reason == expected.outputs[0].stop_reason
    assert answer.prompt_token_ids == list(expected.prompt_token_ids)
    assert answer.prompt_logprobs[0] is None
    assert len(answer.prompt_logprobs) == len(expected.prompt_token_ids)


def test_without_a_limit_an_answer_may_reach_the_contexts_end(client: OpenAI) -> None:
    long = [{"role": "user", "content": "apples " * 490}]
    answer = ask(client, messages=long, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 512


def test_a_form_holds_the_answer(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"x": {"enum": [4, 5]}}, "required": ["x"], "additionalProperties": False}
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = ask(client, response_format=named, max_tokens=60)
    assert json.loads(answer.choices[0].message.content)["x"] in (4, 5)
    chosen = ask(client, extra_body={"structured_outputs": {"choice": ["yes", "no"]}}, max_tokens=9)
    assert chosen.choices[0].message.content in ("yes", "no")
    assert ask(client, extra_body={"guided_regex": "[0-9]{3}"}, max_tokens=9).choices[0].message.content.isdigit()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": -1}, "temperature"),
        ({"extra_body": {"beam_width": 3}}, "beam_width"),
        ({"extra_body": {"chat_template": "{{ 1 }}"}}, "chat_template"),
        ({"extra_body": {"chat_template_kwargs": {"messages": "x"}}}, "not allowed"),
        ({"top_logprobs": 3}, "needs 'logprobs'"),
        ({"n": 100_000}, "n: "),
        ({"n": 1000}, "allows 128"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "differ"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "text only"),
        ({"messages": [{"role": "user", "content": "apples " * 2000}]}, "context is 512"),
        ({"extra_body": {"continue_final_message": True}}, "only an assistant's"),
        ({"extra_body": {"reasoning_effort": "high"}}, "does not reason"),
        ({"response_format": {"type": "json_object"}, "extra_body": {"guided_regex": "a"}}, "choose one"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"logit_bias": {"-5": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "vocabulary"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client: OpenAI, options: dict[str, Any], told: str) -> None:
    with pytest.raises(openai.BadRequestError, match=told):
        ask(client, **options)
    with pytest.raises(openai.BadRequestError, match=told):
        ask(client, stream=True, **options)


def test_a_model_that_is_not_there_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9'") as caught:
        ask(client, model="gpt-9")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"messages": NaN}', b'{"messages": [{"role": "user", "content": "\\ud800"}]}']
)
def test_a_broken_body_is_an_error_of_the_caller(url: str, body: bytes) -> None:
    answer = httpx2.post(f"{url}/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
