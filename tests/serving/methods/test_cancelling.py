"""A client that leaves cancels every branch: no block stays held, and what ran is charged and told in the trace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from ramify.engine.stats import EngineStats
from ramify.serving.app import create_app
from ramify.serving.config import ServerConfig
from ramify.serving.server import Server
from ramify.strategies.kernel.trace import AnyEvent, Stopped, Trace
from tests.serving.conftest import serving_app

ASKED: Any = [{"role": "user", "content": "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."}]
LONG: Any = {"model": "nano@self-consistency:n=64,ignore_eos=true", "messages": ASKED, "seed": 1}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    engine = {"max_model_len": 512, "max_num_seqs": 16}
    made = Server(ServerConfig({"nano": "nano"}, storage_url=":memory:", engine=engine))
    async with serving_app(create_app(made)) as url:
        made.url = url  # type: ignore[attr-defined]
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:  # type: ignore[attr-defined]
        yield made


async def at_rest(server: Server) -> EngineStats:
    """The counters of the engine once it holds nothing; fails if it goes on."""
    for _ in range(500):
        stats = server.models.stats()["nano"]
        if stats.running == stats.waiting == stats.parked == stats.blocks_used == 0:
            return stats
        await asyncio.sleep(0.02)
    raise AssertionError(f"the engine does not come to rest: {stats}")


async def last_trace(server: Server) -> list[AnyEvent]:
    """The events of the newest trace once it is whole."""
    for _ in range(200):
        newest = (await server.storage.traces.list("anonymous", limit=1)).items[0]
        if newest.finished_at is not None:
            return Trace.from_jsonl(b"".join([piece async for piece in server.storage.traces.read(newest)])).events
        await asyncio.sleep(0.02)
    raise AssertionError("the trace is not finished")


async def until_it_runs(server: Server) -> None:
    while server.models.stats()["nano"].running == 0:
        await asyncio.sleep(0.01)


async def leaves_a_stream(client: AsyncOpenAI, server: Server, body: dict[str, Any]) -> None:
    stream = await client.chat.completions.create(**LONG, stream=True, extra_body=body)
    await until_it_runs(server)
    await stream.close()


async def leaves_a_call(client: AsyncOpenAI, server: Server, body: dict[str, Any]) -> None:
    call = asyncio.create_task(client.chat.completions.create(**LONG, extra_body=body))
    await until_it_runs(server)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


@pytest.mark.parametrize("leaves", [leaves_a_stream, leaves_a_call])
async def test_a_client_that_leaves_frees_every_block_and_pays_for_what_ran(
    client: AsyncOpenAI, server: Server, leaves: Any
) -> None:
    before = await at_rest(server)
    await leaves(client, server, {"ramify": {"trace": True}})
    after = await at_rest(server)
    events = await last_trace(server)
    assert isinstance(events[-1], Stopped)
    assert events[-1].reason == "cancelled"
    drawn = after.generation_tokens - before.generation_tokens
    assert 0 < events[-1].ledger["generated"] == drawn < 64 * 400
    assert server.methods.count == 0


async def test_a_run_that_waits_for_its_turn_is_cancelled_there(client: AsyncOpenAI, server: Server) -> None:
    first = asyncio.create_task(client.chat.completions.create(**LONG))
    await until_it_runs(server)
    second = asyncio.create_task(client.chat.completions.create(**LONG))
    while not server.admissions.states()["nano"].waiting:
        await asyncio.sleep(0.01)
    for call in (second, first):
        call.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await at_rest(server)
    assert not server.admissions.states()["nano"].waiting


async def test_the_ledger_is_what_the_engine_counted(client: AsyncOpenAI, server: Server) -> None:
    for spec in ("self-consistency:n=6", "beam:n=4,m=2,scorer=logprob"):
        before = await at_rest(server)
        answer = await client.chat.completions.create(model=f"nano@{spec}", messages=ASKED, seed=3)
        after = await at_rest(server)
        ledger = answer.model_extra["ramify"]["ledger"]
        assert ledger["generated"] == after.generation_tokens - before.generation_tokens
        assert ledger["prompt"] == after.prompt_tokens - before.prompt_tokens


async def test_a_server_that_ends_cancels_its_runs(client: AsyncOpenAI, server: Server) -> None:
    call = asyncio.create_task(client.chat.completions.create(**LONG))
    await until_it_runs(server)
    await server.methods.close()
    await asyncio.gather(call, return_exceptions=True)
    await at_rest(server)
