"""Methods through the official client: every family, streams, one answer here and in Python, budgets, refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from ramify import LLM
from ramify.sampling import SamplingParams
from ramify.strategies import Result, SelfConsistency, parse_strategy

QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
ASKED: Any = [{"role": "user", "content": QUESTION}]
FAMILIES = (
    "best-of-n:n=2",
    "self-consistency:n=4",
    "beam:n=4,m=2,scorer=logprob",
    "rebase:n=2",
    "particle-filter:n=2",
    "moa:samples=2,layers=1",
    "first-finish:stride=8",
)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("nano") as made:
        yield made


def same_work(ledger: dict[str, Any], offline: Result) -> bool:
    """Every count but those of time, and of what a cache happened to hold."""
    left_out = ("wall_s", "prompt_cached")
    return {name: value for name, value in ledger.items() if name not in left_out} == {
        name: value for name, value in offline.ledger.to_dict().items() if name not in left_out
    }


@pytest.mark.parametrize("spec", FAMILIES)
def test_a_method_of_every_family_answers_as_in_python(client: OpenAI, llm: LLM, spec: str) -> None:
    answer = client.chat.completions.create(model=f"nano@{spec},tokens=1500", messages=ASKED, seed=3)
    told = answer.model_extra["ramify"]
    assert told["ledger"]["total_tokens"] <= 1500
    assert answer.usage.completion_tokens == told["ledger"]["total_tokens"]
    assert answer.choices[0].finish_reason == "stop"
    if not parse_strategy(spec).cancels:  # what was drawn of cancelled branches depends on timing
        offline = llm.solve(QUESTION, spec, budget=1500, seed=3)
        assert answer.choices[0].message.content == offline.text
        assert (told["answer"], told["strategy"]) == (str(offline.answer), offline.strategy)
        assert same_work(told["ledger"], offline)


def test_a_stream_tells_of_the_search_and_then_gives_the_same_answer(client: OpenAI) -> None:
    call: Any = {"model": "nano@particle-filter:n=4", "messages": ASKED, "seed": 3}
    whole = client.chat.completions.create(**call)
    chunks = list(client.chat.completions.create(**call, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])  # the loop of every tutorial
    assert text == whole.choices[0].message.content
    told = [chunk.model_extra["ramify"] for chunk in chunks if "ramify" in chunk.model_extra]
    events = [event for each in told[:-1] for event in each["events"]]
    assert [events[0]["type"], events[-1]["type"]] == ["started", "stopped"]
    assert {"grown", "scored", "reported"} <= {event["type"] for event in events}
    assert all("token_ids" not in event for event in events)
    assert told[-1]["answer"] == whole.model_extra["ramify"]["answer"]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert sum(1 for chunk in chunks[:-1] if chunk.choices[0].delta.content) > 10
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"


def test_a_client_that_wants_no_events_gets_none(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="nano@best-of-n:n=2", messages=ASKED, stream=True, extra_body={"ramify": {"events": False}}
    )
    assert [1 for chunk in stream if "events" in chunk.model_extra.get("ramify", {})] == []


def test_the_helper_for_streams_of_the_client_reads_a_method(client: OpenAI) -> None:
    with client.chat.completions.stream(model="nano@best-of-n:n=2", messages=ASKED, seed=1) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    plain = client.chat.completions.create(model="nano@best-of-n:n=2", messages=ASKED, seed=1)
    assert final.choices[0].message.content == plain.choices[0].message.content


async def test_methods_side_by_side_give_what_each_gives_alone(url: str) -> None:
    specs = ("best-of-n:n=2", "self-consistency:n=4")
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def ask(spec: str, **more: Any) -> tuple[str | None, dict[str, Any]]:
            answer = await client.chat.completions.create(
                model="nano", messages=ASKED, seed=5, extra_body={"ramify": {"strategy": spec, "budget": 1200, **more}}
            )
            ledger = dict(answer.model_extra["ramify"]["ledger"])
            return answer.choices[0].message.content, {**ledger, "wall_s": 0, "prompt_cached": 0}

        async def plain() -> str | None:
            answer = await client.chat.completions.create(model="nano", messages=ASKED, seed=5)
            return answer.choices[0].message.content

        alone = [await ask(spec) for spec in specs]
        answer = await plain()
        crowd = await asyncio.gather(*(ask(spec) for spec in specs), *(plain() for _ in range(3)))
        assert list(crowd[:2]) == alone
        assert set(crowd[2:]) == {answer}


def test_the_body_says_how_tokens_are_drawn(client: OpenAI, llm: LLM) -> None:
    answer = client.chat.completions.create(
        model="nano@self-consistency:n=3", messages=ASKED, seed=2, temperature=0.3, top_p=0.9, max_tokens=12,
        stop=["\n"], logprobs=True, top_logprobs=2,
    )  # fmt: skip
    sampling = SamplingParams(temperature=0.3, top_p=0.9, max_tokens=12, stop="\n", logprobs=2)
    offline = llm.solve(QUESTION, SelfConsistency(n=3, sampling=sampling), seed=2)
    assert answer.choices[0].message.content == offline.text
    tokens = answer.choices[0].logprobs.content
    assert [len(token.top_logprobs) for token in tokens] == [2] * len(tokens)
    assert "".join(token.token for token in tokens).startswith(offline.text)


def test_a_conversation_goes_to_the_method_whole(client: OpenAI) -> None:
    said: Any = [*ASKED, {"role": "assistant", "content": "7 * 3 ="}]
    more: Any = {"messages": said, "temperature": 0, "extra_body": {"continue_final_message": True}}
    answer, plain = (client.chat.completions.create(model=name, **more) for name in ("nano@best-of-n:n=2", "nano"))
    assert answer.choices[0].message.content == plain.choices[0].message.content
    assert answer.usage.prompt_tokens == 2 * plain.usage.prompt_tokens


def test_a_text_completion_takes_a_method_too(client: OpenAI) -> None:
    call: Any = {"model": "nano@best-of-n:n=3,tokens=800", "prompt": f"{QUESTION}\n", "seed": 1}
    answer = client.completions.create(**call, logprobs=1)
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.completion_tokens_details.model_extra["answer_tokens"]
    chunks = list(client.completions.create(**call, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text
    assert chunks[-1].model_extra["ramify"]["num_candidates"] == 3


def test_candidates_are_given_on_request_and_the_best_is_marked(client: OpenAI) -> None:
    asked = {"ramify": {"strategy": "best-of-n", "params": {"n": 3}, "candidates": True}}
    answer = client.chat.completions.create(model="nano", messages=ASKED, seed=4, extra_body=asked)
    candidates = answer.model_extra["ramify"]["candidates"]
    best = [each for each in candidates if each["best"]]
    assert len(candidates) == 3
    assert [each["text"] for each in best] == [answer.choices[0].message.content]
    assert best[0]["score"] == max(each["score"] for each in candidates) == answer.model_extra["ramify"]["score"]


def test_a_run_without_a_seed_says_which_it_took(client: OpenAI) -> None:
    first = client.chat.completions.create(model="nano@best-of-n:n=2", messages=ASKED)
    seed = first.model_extra["ramify"]["seed"]
    again = client.chat.completions.create(model="nano@best-of-n:n=2", messages=ASKED, seed=seed)
    assert again.choices[0].message.content == first.choices[0].message.content
    other = client.chat.completions.create(model="nano@best-of-n:n=2", messages=ASKED)
    assert other.model_extra["ramify"]["seed"] != seed


def test_a_small_budget_gives_the_best_so_far(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="nano@self-consistency:n=16,tokens=60", messages=ASKED, seed=1)
    told = answer.model_extra["ramify"]
    assert told["stop_reason"] == "budget"
    assert told["ledger"]["total_tokens"] <= 60
    assert answer.choices[0].message.content
    nothing = client.chat.completions.create(model="nano@best-of-n:n=4,tokens=1", messages=ASKED, seed=1)
    assert (nothing.choices[0].finish_reason, nothing.choices[0].message.content) == ("length", "")


def test_a_run_out_of_time_gives_the_best_so_far(client: OpenAI) -> None:
    # Hundreds of answers one after the other, which nothing ends early. However fast the machine is: in the shortest
    # of these times in which one of them can be had, not all of them can.
    slow: Any = {"model": "nano@ab-mcts-a:trials=256,scorer=rule", "messages": ASKED}
    for timeout in (1, 4, 16, 64):
        try:
            answer = client.chat.completions.create(**slow, extra_body={"timeout": timeout})
            break
        except APIStatusError as error:
            if error.status_code != 408:
                raise
    told = answer.model_extra["ramify"]
    assert told["stop_reason"] == "deadline"
    assert 1 <= told["num_candidates"] < 256
    assert answer.choices[0].message.content


@pytest.mark.parametrize(
    ("body", "words", "param"),
    [
        ({"model": "nano@best-of-m"}, "did you mean 'best-of-n'", "model"),
        ({"model": "nano", "ramify": {"strategy": "beam:n=4,mm=2"}}, "did you mean 'm'", "ramify.strategy"),
        ({"model": "nano@best-of-n:scorer=my-prm"}, "needs a reward model, and 'my-prm' is none", "ramify.scorer"),
        ({"model": "nano@best-of-n", "ramify": {"scorer": "nano"}}, "'nano' is none here", "ramify.scorer"),
        ({"model": "nano@cascade:cheaper=tiny"}, "needs a model that answers, and 'tiny' is none here", "model"),
        ({"model": "nano@best-of-n", "n": 2}, "n=2 does not work with a method", "n"),
        ({"model": "nano@best-of-n:top_p=0.5", "top_p": 0.7}, "top_p is given in the body and", "top_p"),
        ({"model": "nano@best-of-n:n=300"}, "this server allows 256 at most", "model"),
        ({"model": "nano@beam", "ramify": {"budget": {"dollars": 1}}}, "has no prices", "ramify.budget"),
        ({"model": "nano@beam", "ramify": {"branch_key": "0" * 32}}, "names the draws of a plain call", None),
        ({"model": "nano@beam", "ramify": {"budgett": 3}}, "budgett", "ramify.budgett"),
        ({"model": "nano@beam", "ramify": {"params": {"n": [4]}}}, "ramify.params", None),
        ({"model": "nano@budget-forcing", "response_format": {"type": "json_object"}}, "text of its own", "model"),
    ],
)
def test_what_cannot_run_is_refused_before_the_first_token(
    client: OpenAI, body: dict[str, Any], words: str, param: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(messages=ASKED, stream=stream, model="", extra_body=body)
        assert words in caught.value.message
        assert param is None or caught.value.param == param


def test_a_model_that_is_not_served_is_named_without_the_method(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="there is no model 'other' here"):
        client.chat.completions.create(model="other@beam", messages=ASKED)


def test_a_text_completion_with_what_a_method_cannot_do_is_refused(client: OpenAI) -> None:
    for more, words in (({"echo": True}, "echo"), ({"best_of": 3}, "best_of"), ({"prompt": ["a", "b"]}, "2 prompts")):
        with pytest.raises(BadRequestError, match=words):
            client.completions.create(**{"model": "nano@beam", "prompt": "a", **more})


def test_methods_are_listed_with_their_options(url: str) -> None:
    listed = httpx2.get(f"{url}/v1/strategies").json()
    by_name = {entry["id"]: entry for entry in listed["data"]}
    best = by_name["best-of-n"]
    assert best["params"]["properties"]["n"] == {"type": "integer", "description": "answers to draw.", "default": 16}
    assert (best["docs"], best["reward_models"]) == ("techniques/best-of-n.md", ["nano-prm"])
    assert all("description" in option for entry in listed["data"] for option in entry["params"]["properties"].values())
    assert httpx2.get(f"{url}/v1/strategies/beam").json() == by_name["beam"]
    assert "did you mean 'beam'" in httpx2.get(f"{url}/v1/strategies/baem").text


def test_the_document_of_the_api_describes_the_field(url: str) -> None:
    document = httpx2.get(f"{url}/openapi.json").json()
    described = document["components"]["schemas"]["RamifyField"]["properties"]
    assert {"strategy", "params", "budget", "scorer"} <= set(described)


def test_a_stored_trace_is_the_run_event_by_event(client: OpenAI, url: str, tmp_path: Any) -> None:
    from ramify.strategies.kernel.trace_file import read_trace

    asked = {"ramify": {"trace": True}}
    answer = client.chat.completions.create(model="nano@beam:n=4,m=2", messages=ASKED, seed=3, extra_body=asked)
    told = answer.model_extra["ramify"]
    (tmp_path / "trace.jsonl").write_bytes(httpx2.get(f"{url}/v1/traces/{told['trace_id']}/content").content)
    tree = read_trace(tmp_path / "trace.jsonl").tree()
    best = "".join(node.text for node in tree if node.best)
    assert best == answer.choices[0].message.content
    last = json.loads((tmp_path / "trace.jsonl").read_text().splitlines()[-1])
    assert (last["type"], last["ledger"]["total_tokens"]) == ("Stopped", told["ledger"]["total_tokens"])
