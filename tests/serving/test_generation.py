"""What every generation passes: admission, deadlines and counting, on a real engine without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ramify.engine.outputs import RequestOutput
from ramify.sampling import SamplingParams
from ramify.serving.admission import Ticket, Work
from ramify.serving.auth import Caller
from ramify.serving.config import ServerConfig
from ramify.serving.deadlines import Deadline
from ramify.serving.errors import ApiError
from ramify.serving.generation import Call, generate
from ramify.serving.models import ServedModel
from ramify.serving.rates import Rates
from ramify.serving.server import Server
from tests.serving.in_process import launch_in_process

PROMPT = "Use the numbers 3, 7 and 4 to make 25."
ENDLESS = SamplingParams(temperature=1, ignore_eos=True, max_tokens=400, seed=1)


@asynccontextmanager
async def a_server(**options: object) -> AsyncIterator[tuple[Server, ServedModel]]:
    config = ServerConfig({"nano": "nano"}, **options)  # type: ignore[arg-type]
    config = replace(config, storage_url=":memory:", engine={"max_model_len": 512, "max_num_seqs": 2, **config.engine})
    server = Server(config)
    server.models._loader.launch = launch_in_process
    await server.start()
    try:
        async with server.models.use("nano", Caller()) as model:
            yield server, model
    finally:
        await server.close()


async def run(server: Server, model: ServedModel, params: SamplingParams, call: Call) -> RequestOutput:
    async for output in generate(server, model, PROMPT, params, call):
        last = output
    return last


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, {"model_name": "nano", **labels}) or 0.0


async def empty(model: ServedModel) -> bool:
    """Whether the engine has let go of everything, after it had the time of some steps to do so."""
    for _ in range(200):
        stats = model.engine.stats()
        if stats.running == stats.waiting == stats.blocks_used == 0:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_burst_beyond_the_bounds_is_told_to_come_back_and_everybody_else_is_served_whole() -> None:
    async with a_server(max_waiting=3) as (server, model):
        params = SamplingParams(max_tokens=20, ignore_eos=True, seed=7)
        calls = [Call(f"r{i}", Caller()) for i in range(12)]
        done = await asyncio.gather(*(run(server, model, params, call) for call in calls), return_exceptions=True)
        answers = [each for each in done if isinstance(each, RequestOutput)]
        refusals = [each for each in done if isinstance(each, ApiError)]
        assert len(answers) == 2 + 3
        assert len(refusals) == 7
        assert len({tuple(answer.outputs[0].token_ids) for answer in answers}) == 1
        assert all(len(answer.outputs[0].token_ids) == 20 for answer in answers)
        assert all(each.status == 429 and int(each.headers["retry-after"]) >= 1 for each in refusals)

        registry, stats = server.metrics.registry, model.engine.stats()
        assert value(registry, "vllm:generation_tokens_total") == stats.generation_tokens == 5 * 20
        assert value(registry, "vllm:prompt_tokens_total") == stats.prompt_tokens
        assert value(registry, "vllm:request_generation_tokens_sum") == stats.generation_tokens
        assert value(registry, "vllm:request_prompt_tokens_sum") == stats.prompt_tokens
        assert value(registry, "vllm:request_success_total", finished_reason="length") == 5
        assert value(registry, "vllm:admission_rejections_total", reason="requests") == 7
        for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time", "request_decode_time"):
            assert value(registry, f"vllm:{name}_seconds_count") == 5
        assert value(registry, "vllm:inter_token_latency_seconds_count") == 5 * 19
        assert value(registry, "vllm:iteration_tokens_total_count") == stats.steps
        assert value(registry, "vllm:iteration_tokens_total_sum") == stats.rows
        assert value(registry, "vllm:num_requests_waiting") == value(registry, "vllm:num_requests_running") == 0
        assert value(registry, "ramify:step_phase_seconds_total", phase="forward") == stats.timings_s["forward"] > 0
        assert await empty(model)


async def test_an_answer_that_is_late_is_cut_and_its_work_dropped() -> None:
    async with a_server(request_timeout_s=60.0) as (server, model):
        with pytest.raises(ApiError) as cut:
            await run(server, model, ENDLESS, Call("mine", Caller(), timeout_s=0.05))
        assert (cut.value.status, cut.value.code) == (408, "deadline_exceeded")
        assert await empty(model)
        assert value(server.metrics.registry, "ramify:deadlines_missed_total", deadline="client") == 1
        with pytest.raises(ApiError, match="60 s at most") as refused:
            await run(server, model, ENDLESS, Call("greedy", Caller(), timeout_s=61))
        assert refused.value.status == 400
        assert server.admissions.of(model).queue.num_running == 0


async def test_a_deadline_passes_in_the_queue_too_and_a_queue_that_would_miss_it_takes_nobody() -> None:
    async with a_server(request_timeout_s=0.2) as (server, model), AsyncExitStack() as holding:
        admission = server.admissions.of(model)
        for _ in range(2):
            await holding.enter_async_context(admission.slot(Ticket("", Work(10))))
        with pytest.raises(ApiError) as late:
            await run(server, model, ENDLESS, Call("late", Caller(), timeout_s=0.1))
        assert late.value.status == 408  # nothing is known yet of how long it takes
        with pytest.raises(ApiError) as late:
            await run(server, model, ENDLESS, Call("late too", Caller()))
        assert late.value.status == 504
        await holding.aclose()

        server.config = replace(server.config, request_timeout_s=60.0)
        await run(server, model, replace(ENDLESS, max_tokens=20), Call("short", Caller()))
        admission.pace.observe(model.engine.stats())
        admission.pace.ended(10**9)  # now it is known, and it is long
        for _ in range(2):
            await holding.enter_async_context(admission.slot(Ticket("", Work(10))))
        with pytest.raises(ApiError) as refused:
            await run(server, model, ENDLESS, Call("hopeless", Caller(), timeout_s=30))
        assert refused.value.status == 429
        assert int(refused.value.headers["retry-after"]) > 30
        assert value(server.metrics.registry, "vllm:admission_rejections_total", reason="wait") == 1
        assert value(server.metrics.registry, "ramify:expected_wait_seconds") > 30
        assert admission.queue.num_waiting == 0


async def test_a_caller_that_goes_away_leaves_nothing_behind_and_is_counted_as_aborted() -> None:
    async with a_server() as (server, model):
        tasks = [asyncio.create_task(run(server, model, ENDLESS, Call(f"r{i}", Caller()))) for i in range(5)]
        while model.engine.stats().generation_tokens < 6:
            await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await empty(model)
        queue = server.admissions.of(model).queue
        assert queue.num_running == queue.num_waiting == 0
        assert value(server.metrics.registry, "vllm:request_success_total", finished_reason="abort") == 2


async def test_a_keys_tokens_are_charged_when_they_are_known() -> None:
    async with a_server() as (server, model):
        caller = Caller("key", "tenant", rates=Rates(None, 60_000, clock=lambda: 0.0))
        params = SamplingParams(max_tokens=30, ignore_eos=True)
        output = await run(server, model, params, Call("one", caller))
        used = len(output.prompt_token_ids) + 30
        left = int(caller.rates.headers()["x-ratelimit-remaining-tokens"])
        assert left == 60_000 - used
        caller.rates.charge(60_000)
        with pytest.raises(ApiError) as refused:
            await run(server, model, params, Call("two", caller))
        assert refused.value.status == 429


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_a_client_may_ask_for_less_time_than_the_server_gives_and_not_for_more(asked: float, limit: float) -> None:
    if asked > limit:
        with pytest.raises(ApiError):
            Deadline.of(0.0, asked, limit)
    else:
        deadline = Deadline.of(0.0, asked, limit)
        assert deadline is not None
        assert (deadline.at_s, deadline.missed().status) == (asked, 408)
    default = Deadline.of(0.0, None, limit)
    assert default is not None
    assert (default.at_s, default.missed().status) == (limit, 504)
    assert Deadline.of(0.0, None, None) is None
