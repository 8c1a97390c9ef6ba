"""Text completions: prompts in every form, echo with log-probabilities, best_of; named branches equal local ones."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from ramify import LLM, SamplingParams
from ramify.randomness import BranchKey
from ramify.serving.auth import presented_token
from ramify.serving.running import SIDE_BY_SIDE

PROMPTS = ["12 + 7 = ", "Tom has 3 apples."]


def complete(client: OpenAI, **options: Any) -> Any:
    return client.completions.create(**{"model": "nano", "prompt": PROMPTS[0], "max_tokens": 6, "seed": 4, **options})


def test_a_prompt_may_be_text_ids_or_a_list_of_either(client: OpenAI, local: LLM) -> None:
    ids = [list(local.tokenizer.encode(prompt)) for prompt in PROMPTS]
    expected = [
        answer.text
        for output in local.generate(PROMPTS, SamplingParams(n=2, max_tokens=6, seed=4), use_tqdm=False)
        for answer in output.outputs
    ]
    prompt: Any
    for prompt in (PROMPTS, ids):
        answer = complete(client, prompt=prompt, n=2)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert [choice.text for choice in answer.choices] == expected
        assert answer.usage.prompt_tokens == sum(map(len, ids))
    one: tuple[Any, ...] = (PROMPTS[0], ids[0])
    for prompt in one:
        assert [choice.text for choice in complete(client, prompt=prompt, n=2).choices] == expected[:2]
    texts = dict.fromkeys(range(4), "")
    for chunk in complete(client, prompt=PROMPTS, n=2, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == expected


def test_a_prompt_of_one_token_has_no_logprob(client: OpenAI) -> None:
    told = complete(client, prompt=[5], echo=True, logprobs=1, max_tokens=0).choices[0].logprobs
    assert (told.token_logprobs, told.top_logprobs) == ([None], [None])


def test_more_prompts_than_run_at_once_are_all_answered(client: OpenAI) -> None:
    answer = complete(client, prompt=[[token] for token in range(20, 20 + SIDE_BY_SIDE + 20)], max_tokens=1)
    assert [choice.index for choice in answer.choices] == list(range(SIDE_BY_SIDE + 20))


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_scores_the_prompt_as_evaluation_harnesses_ask_for_it(client: OpenAI, local: LLM, max_tokens: int) -> None:
    ids = list(local.tokenizer.encode("Tom has 12 apples and gives 7 away. ø"))
    answer = complete(client, prompt=[ids], echo=True, logprobs=1, max_tokens=max_tokens)
    told = answer.choices[0].logprobs
    [expected] = local.logprobs([ids[:1]], [tuple(ids[1:])])
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    assert told.token_logprobs[1 : len(ids)] == expected.tolist()
    lengths = {len(entries) for entries in (told.tokens, told.token_logprobs, told.top_logprobs, told.text_offset)}
    assert lengths == {len(ids) + max_tokens}
    for token, logprob, top in zip(told.tokens[1:], told.token_logprobs[1:], told.top_logprobs[1:], strict=True):
        assert max(top.values()) >= logprob
        assert token in top
    assert answer.choices[0].text.startswith(local.tokenizer.decode(ids))
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        assert "\ufffd" in token or answer.choices[0].text[offset:].startswith(token)


def test_a_streamed_echo_adds_up(client: OpenAI) -> None:
    options: dict[str, Any] = {"echo": True, "logprobs": 2, "max_tokens": 5}
    whole = complete(client, **options).choices[0]
    chunks = [chunk.choices[0] for chunk in complete(client, stream=True, **options)]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        pieces = [entry for chunk in chunks if chunk.logprobs for entry in getattr(chunk.logprobs, name)]
        assert pieces == getattr(whole.logprobs, name)


def test_best_of_gives_the_likeliest(client: OpenAI, local: LLM) -> None:
    answer = complete(client, n=2, extra_body={"best_of": 6})
    [drawn] = local.generate(PROMPTS[0], SamplingParams(n=6, max_tokens=6, seed=4, logprobs=0), use_tqdm=False)
    ranked = sorted(drawn.outputs, key=lambda each: -(each.cumulative_logprob or 0) / len(each.token_ids))
    assert [choice.text for choice in answer.choices] == [each.text for each in ranked[:2]]
    assert answer.choices[0].logprobs is None
    assert answer.usage.completion_tokens == sum(len(each.token_ids) for each in drawn.outputs)


def test_draws_of_a_named_branch_equal_local_ones(client: OpenAI, url: str) -> None:
    key = BranchKey.root(4).child(3)
    named = {"branch_key": f"{key.high:016x}{key.low:016x}", "child": 1}
    remote = complete(client, extra_body={"ramify": named}, temperature=2.0, max_tokens=12)
    root = BranchKey.root(4)
    parent = {"branch_key": f"{root.high:016x}{root.low:016x}", "child": 0}
    assert complete(client, extra_body={"ramify": parent}).choices[0].text == complete(client).choices[0].text
    assert remote.choices[0].text != complete(client, temperature=2.0, max_tokens=12).choices[0].text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"prompt": ""}, "empty"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, -2]}, "prompt.1"),
        ({"prompt": [1] * 513}, "513 tokens"),
        ({"prompt": "a" * 100_000}, "100,000 characters"),
        ({"prompt": [5_000_000]}, "vocabulary"),
        ({"prompt": "a\ud800"}, "Unicode"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "does not stream"),
        ({"logprobs": 500}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": ["a"] * 100, "n": 30}, "times n"),
        ({"ramify": {"branch_key": "x"}}, "branch_key"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(url: str, options: dict[str, Any], told: str) -> None:
    body = {"model": "nano", "prompt": "a", **options}
    headers = {"content-type": "application/json"}
    answer = httpx2.post(f"{url}/v1/completions", content=json.dumps(body), headers=headers)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_a_bearer_header_without_a_key_is_no_key() -> None:
    assert presented_token([(b"authorization", b"Bearer ")]) is None


def test_a_text_or_a_conversation_is_tokenised_and_back(url: str, local: LLM) -> None:
    with httpx2.Client(base_url=url) as http:
        told = http.post("/tokenize", json={"model": "nano", "prompt": PROMPTS[1], "return_token_strs": True}).json()
        assert told["tokens"] == list(local.tokenizer.encode(PROMPTS[1]))
        assert (told["count"], "".join(told["token_strs"])) == (len(told["tokens"]), PROMPTS[1])
        assert http.post("/detokenize", json={"tokens": told["tokens"]}).json() == {"prompt": PROMPTS[1]}
        messages = [{"role": "user", "content": "hi"}]
        told = http.post("/tokenize", json={"messages": messages}).json()
        assert told["tokens"] == list(local.tokenizer.chat_ids(messages))


def test_a_model_is_found_by_its_name(client: OpenAI) -> None:
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")
