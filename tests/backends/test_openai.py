"""Strategies on an OpenAI-compatible endpoint: local answers where draws can be named, nothing lost to faults."""

import json
from dataclasses import replace

import pytest

from ramify.backends.base import Backend, Capability
from ramify.backends.local import LocalBackend
from ramify.backends.openai import OpenAIBackend, load_prices
from ramify.backends.openai_client import Endpoint
from ramify.backends.scripted import ScriptedBackend
from ramify.errors import CapabilityError, ConfigError, EngineError, PromptTooLongError, RequestError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring import KeyedBy, MarkedAnswer, Problem
from ramify.strategies import Budget, Prices, parse_strategy, solve
from tests.backends.openai_server import Server, serving
from tests.engine.harness import checkpoint

REPLIES = ["two and two\n#### 4", "I guess\n#### 5", "sum\n#### 4"]
BY_TEXT = KeyedBy(lambda text, problem: text.strip() or None)


def check_result(result, backend) -> None:
    """The ledger is the backend's own count."""
    ledger, usage = result.ledger, backend.usage
    assert (ledger.prompt, ledger.calls, ledger.lost) == (usage.prompt, usage.calls, usage.lost)
    assert ledger.total_tokens == usage.generated + usage.probe
    assert result.best.key in [candidate.node.key for candidate in result.candidates] or not result.candidates


def scripted() -> ScriptedBackend:
    return ScriptedBackend(lambda call: REPLIES[call.index % 3].removeprefix(call.answer))


def connect(server: Server, **options) -> OpenAIBackend:
    return OpenAIBackend(Endpoint(server.url, "m", **{"retries": 3, "timeout_s": 1.0, **options}))


async def run(backend, spec, equivalence=None, **options):
    problem = Problem("p", "What is 2 + 2?")
    return await solve(parse_strategy(spec), problem, backend, equivalence=equivalence or MarkedAnswer(), **options)


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("n", [True, False])
async def test_a_vote_through_either_api_with_and_without_n(api, n):
    async with serving(scripted()) as server, connect(server, api=api, n=n) as backend:
        assert isinstance(backend, Backend)
        result = await run(backend, "self-consistency:n=3")
        check_result(result, backend)
        assert str(result.answer) == "4"
        assert result.ledger.generated == sum(len(reply.split()) for reply in REPLIES)
        assert result.ledger.prompt == 7 * len(server.bodies)
        assert len(server.bodies) == (1 if n else 3)


@pytest.mark.parametrize(
    "spec", ["self-consistency:n=4,max_tokens=12", "sample:max_tokens=20", "best-of-n:n=4,scorer=logprob,max_tokens=9"]
)
async def test_named_draws_give_the_local_answer(spec):
    folder = checkpoint("llama2")
    async with LocalBackend.load(folder, num_kv_blocks=60) as local:
        expected = await run(local, spec, BY_TEXT, seed=5)
    served = LocalBackend.load(folder, num_kv_blocks=60)
    async with served, serving(served) as server, connect(server, branch_keys=True) as backend:
        found = await run(backend, spec, BY_TEXT, seed=5)
        check_result(found, backend)
    assert found.text == expected.text
    assert [c.node.text for c in found.candidates] == [c.node.text for c in expected.candidates]
    assert found.ledger.generated == expected.ledger.generated


@pytest.mark.parametrize("continuation", ["continue_final_message", "prefix"])
async def test_step_methods_continue_answers_and_stop_streams_at_a_steps_end(continuation):
    script = ScriptedBackend(lambda call: "first line\nsecond line\n#### 4".removeprefix(call.answer))
    async with serving(script, pause_s=0.001) as server, connect(server, continuation=continuation) as backend:
        result = await run(backend, "beam:n=2,m=1,scorer=rule")
        check_result(result, backend)
        assert result.text == "first line\nsecond line\n#### 4"
        last = server.bodies[-1]
        assert last["messages"][-1]["content"] == "first line\nsecond line\n"
        assert (last["messages"][-1].get("prefix"), last.get("continue_final_message")) in [(True, None), (None, True)]


async def test_what_an_endpoint_cannot_do_is_said_before_anything_is_asked():
    async with serving(scripted()) as server, connect(server, logprobs=False) as backend:
        with pytest.raises(CapabilityError, match="reward"):
            await run(backend, "best-of-n:n=2")
        with pytest.raises(CapabilityError, match="logprobs"):
            await run(backend, "best-of-n:n=2,scorer=logprob")
        with pytest.raises(CapabilityError, match="continue"):
            await run(backend, "beam:n=2,m=1,scorer=rule")
        root = await backend.root("q", BranchKey.root(0))
        with pytest.raises(CapabilityError, match="cut"):
            await backend.append(root, backend.encode("a"), root.key, keep=0)
        with pytest.raises(CapabilityError, match="echo"):
            await backend.logprobs(root, [backend.encode("a")])
        with pytest.raises(RequestError, match="no token ids"):
            await backend.root((1, 2), BranchKey.root(0))
        with pytest.raises(RequestError, match="'x'"):
            await backend.root("q", BranchKey.root(0), model="x")
        with pytest.raises(PromptTooLongError, match="max_model_len"):
            await backend.root("q" * 9000, BranchKey.root(0))
        assert len([body for body in server.bodies if body["messages"][-1]["role"] == "assistant"]) == 0


@pytest.mark.parametrize("fault", ["429", "500", "503", "half", "cut", "silence"])
@pytest.mark.parametrize("n", [True, False])
async def test_a_flaky_endpoint_loses_nothing(fault, n):
    async with serving(scripted(), faults=[fault]) as server, connect(server, n=n) as backend:
        result = await run(backend, "self-consistency:n=3", budget=Budget(tokens=1000))
        check_result(result, backend)
        assert result.stop_reason == "finished"
        assert len(result.candidates) == 3
        assert all(c.node.finish_reason == "stop" for c in result.candidates)
        assert (result.ledger.lost > 0) == (fault in ("half", "cut"))
        assert len(server.bodies) >= 2


async def test_an_endpoint_that_always_breaks_off_is_an_error_and_not_an_answer():
    async with serving(scripted(), faults=["cut"] * 9) as server, connect(server, retries=2) as backend:
        with pytest.raises(EngineError, match="in part"):
            await run(backend, "sample")
    async with serving(scripted(), faults=["500"] * 9) as server, connect(server, retries=1) as backend:
        with pytest.raises(EngineError, match="told to fail"):
            await run(backend, "sample")


@pytest.mark.parametrize(("fault", "message"), [("400", "told to fail with 400"), ("401", "API key")])
async def test_a_refusal_is_passed_on_and_not_repeated(fault, message):
    async with serving(scripted(), faults=[fault]) as server, connect(server) as backend:
        with pytest.raises(RequestError, match=message):
            await run(backend, "sample")
        assert len(server.bodies) == 1


async def test_requests_at_once_are_limited_and_seeds_differ_from_branch_to_branch():
    async with serving(scripted()) as server, connect(server, seed=True, max_concurrency=2) as backend:
        await run(backend, "self-consistency:n=5")
        first = [body["seed"] for body in server.bodies]
        await run(backend, "self-consistency:n=5")
        assert len(set(first)) == 5
        assert sorted(first) == sorted(body["seed"] for body in server.bodies[5:])


async def test_a_cancelled_branch_closes_its_stream_and_stays_in_the_budget():
    long = ScriptedBackend(lambda call: "word " * 300)
    async with serving(long, pause_s=0.01) as server, connect(server) as backend:
        result = await run(backend, "self-consistency:n=2", budget=Budget(seconds=0.3))
        check_result(result, backend)
        assert result.stop_reason == "budget"
    assert server.closed >= 1


async def test_given_text_is_scored_by_its_own_tokens():
    async with serving(scripted()) as server, connect(server, api="completions", echo=True) as backend:
        assert Capability.PROMPT_SCORING in backend.capabilities
        root = await backend.root("abc", BranchKey.root(0))
        found = await backend.logprobs(root, [backend.encode("de"), backend.encode("f")])
        assert [values.tolist() for values in found] == [[-3.0, -4.0], [-3.0]]
        assert backend.usage.probe == 3


async def test_sampling_parameters_are_sent_as_the_api_and_as_vllm_name_them():
    async with serving(scripted()) as server, connect(server) as backend:
        root = await backend.root("q", BranchKey.root(0))
        params = SamplingParams(
            max_tokens=9, temperature=0.5, top_p=0.9, top_k=4, min_p=0.1, stop=["x"], logprobs=2, seed=3
        )
        [node async for node in backend.extend(root, params)]
        body = server.bodies[0]
        wanted = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "stop": ["x"], "seed": 3}
        assert wanted.items() <= body.items()
        assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


async def test_dollars_are_a_cap_too(tmp_path):
    table = tmp_path / "prices.json"
    table.write_text(json.dumps({"m": {"prompt": 1.0, "generated": 2.0}}))
    prices = Prices(**load_prices(table)["m"])
    async with serving(scripted()) as server, connect(server, n=False) as backend:
        free = await run(backend, "self-consistency:n=3", budget=Budget(prices=prices))
        usage = free.ledger
        assert usage.cost == pytest.approx((usage.prompt * 1.0 + usage.generated * 2.0) / 1e6)
        capped = await run(backend, "self-consistency:n=3", budget=Budget(dollars=usage.cost / 2, prices=prices))
        assert capped.ledger.cost <= usage.cost / 2
    table.write_text("[]")
    with pytest.raises(ConfigError, match="cost table"):
        load_prices(table)


def test_settings_that_cannot_work_are_refused():
    good = Endpoint("http://127.0.0.1:1/v1", "m")
    for changes in ({"base_url": "localhost"}, {"api": "x"}, {"max_concurrency": 0}, {"retries": -1}):
        with pytest.raises(ConfigError):
            replace(good, **changes)
    assert "sk-" not in repr(replace(good, api_key="sk-secret"))
