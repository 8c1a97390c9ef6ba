"""The load generator against a server whose every time is known: what it measures is what happened."""

import asyncio
import gc
import json
import time
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ramify.errors import ConfigError
from ramify.serving.bench.address import Address
from ramify.serving.bench.client import Target
from ramify.serving.bench.drive import drive, tokens_per_word
from ramify.serving.bench.plan import Session, Turn
from ramify.serving.bench.summary import parse_goodput, summarise, ttft_s

TARGET = Target("m", extra_body={"seed": 1})


@dataclass
class Clockwork:
    """A server that answers after given waits and logs its own times.

    Attributes:
        stall_s: from the first request on it answers nothing for so long.
        stalled_until_s: the end of that.
        crowd: nothing is answered before so many requests are there at once.
    """

    first_s: float = 0.02
    gap_s: float = 0.005
    tokens: int = 4
    stall_s: float = 0.0
    stalled_until_s: float = 0.0
    crowd: int = 0
    fail_every: int = 0
    counts: bool = True
    bodies: list[dict[str, Any]] = field(default_factory=list)
    log: list[tuple[float, float, float]] = field(default_factory=list)
    crowded: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, request: Request) -> Response:
        arrived_s = time.perf_counter()
        body = json.loads(await request.body())
        self.bodies.append(body)
        if self.fail_every and len(self.bodies) % self.fail_every == 0:
            return JSONResponse({"error": {"message": "told to fail"}}, 503)
        return StreamingResponse(self._stream(body, arrived_s), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any], arrived_s: float) -> AsyncIterator[bytes]:
        self.stalled_until_s = self.stalled_until_s or time.perf_counter() + self.stall_s
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.at_once >= self.crowd:
            self.crowded.set()
        await self.crowded.wait()
        await asyncio.sleep(max(self.first_s, self.stalled_until_s - time.perf_counter()))
        first_s = time.perf_counter()
        for number in range(self.tokens):
            if number:
                await asyncio.sleep(self.gap_s)
            yield event({"choices": [{"delta": {"content": f"w{number} "}}]})
        last_s = time.perf_counter()
        words = sum(len(message["content"].split()) for message in body["messages"])
        usage = {"prompt_tokens": 5 + 2 * words, "completion_tokens": self.tokens} if self.counts else None
        yield event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
        self.log.append((first_s - arrived_s, last_s - first_s, last_s - arrived_s))
        self.at_once -= 1

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse("# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc 0.25\n")


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


@asynccontextmanager
async def clockwork(server: Clockwork) -> AsyncIterator[Address]:
    routes = [Route("/v1/chat/completions", server.answer, methods=["POST"]), Route("/metrics", server.metrics)]
    web = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical"))
    task = asyncio.create_task(web.serve())
    while not web.started:
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield Address.of(url)
    finally:
        web.should_exit = True
        await task


def sessions(count: int, every_s: float, turns: int = 1) -> list[Session]:
    return [
        Session(i * every_s, tuple(Turn(f"say {i}", 4, 0.01 if t else 0.0) for t in range(turns))) for i in range(count)
    ]


async def test_what_is_measured_is_what_the_server_logged() -> None:
    server = Clockwork()
    async with clockwork(server) as address:
        load = await to_thread(drive, address, TARGET, sessions(40, 0.01))
    summary = summarise(load)
    assert (summary.completed, summary.failed, summary.total_output_tokens) == (40, 0, 160)
    logged = 1000 * np.array(server.log)
    for place, found in ((0, summary.ttft), (2, summary.e2el)):
        # The way there and back comes on top, and the time for which the one loop of this test was busy.
        assert logged[:, place].mean() <= found.mean <= 1000 * load.duration_s
    assert summary.itl.count == 120
    assert load.moments[0].kv_usage == 0.25


async def test_requests_that_were_due_while_the_server_stood_still_are_charged_with_the_wait() -> None:
    server = Clockwork(stall_s=0.6, crowd=2)
    async with clockwork(server) as address:
        load = await to_thread(drive, address, TARGET, sessions(12, 0.05), max_concurrency=2)
    waits = [ttft_s(request) for request in load.requests]
    # Two are in flight while it stands still; each later one was due in that time and waited for the rest of it.
    for place, wait_s in enumerate(waits):
        due_s = load.requests[place].intended_s
        assert wait_s is not None
        assert wait_s >= server.stalled_until_s - due_s - 0.01
    assert server.most_at_once == 2


async def test_the_load_is_open_answers_that_do_not_come_keep_no_later_request_back() -> None:
    server = Clockwork(crowd=20)
    async with clockwork(server) as address:
        load = await to_thread(drive, address, TARGET, sessions(20, 0.01))
    assert server.most_at_once == 20
    assert all(request.ok for request in load.requests)


async def test_a_turn_is_sent_with_all_before_it_once_its_pause_is_over() -> None:
    server = Clockwork()
    async with clockwork(server) as address:
        load = await to_thread(drive, address, TARGET, sessions(1, 0.0, turns=3))
    spoken = [[message["role"] for message in body["messages"]] for body in server.bodies]
    assert spoken == [["user"], ["user", "assistant", "user"], ["user", "assistant", "user", "assistant", "user"]]
    assert server.bodies[1]["messages"][1]["content"] == "w0 w1 w2 w3 "
    assert server.bodies[0]["seed"] == 1
    assert server.bodies[0]["max_tokens"] == 4
    first, second, _ = load.requests
    assert first.ended_s is not None
    assert second.intended_s == pytest.approx(first.ended_s + 0.01)
    assert [request.turn for request in load.requests] == [0, 1, 2]


async def test_what_fails_is_counted_by_its_reason_and_is_in_no_latency() -> None:
    server = Clockwork(fail_every=3)
    async with clockwork(server) as address:
        load = await to_thread(drive, address, TARGET, sessions(9, 0.01))
    summary = summarise(load, parse_goodput(["ttft:10000"]))
    assert (summary.completed, summary.failed) == (6, 3)
    [(reason, count)] = summary.errors.items()
    assert count == 3
    assert "HTTP 503" in reason
    assert "told to fail" in reason
    assert summary.ttft.count == 6
    assert summary.goodput_share == pytest.approx(6 / 9)


async def test_a_word_is_as_many_tokens_as_the_server_counts() -> None:
    async with clockwork(Clockwork()) as address:
        assert await to_thread(tokens_per_word, address, TARGET) == 2.0
    async with clockwork(Clockwork(counts=False)) as address:
        with pytest.raises(ConfigError, match="tokens-per-word"):
            await to_thread(tokens_per_word, address, TARGET)


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    with pytest.raises(ConfigError, match=r"http://127.0.0.1:9 does not answer a first request: no connection"):
        tokens_per_word(Address.of("http://127.0.0.1:9"), TARGET)


async def test_a_slow_server_does_not_slow_the_schedule() -> None:
    plan = [Session(0.013 * i, (Turn(f"say {i}", 4),)) for i in range(12)]
    for first_s in (0.0, 0.3):
        async with clockwork(Clockwork(first_s=first_s)) as address:
            load = await to_thread(drive, address, TARGET, plan)
        assert [request.intended_s - load.started_s for request in load.requests] == pytest.approx(
            [session.at_s for session in plan], abs=1e-6
        )
        assert all(request.sent_s is not None and request.sent_s >= request.intended_s for request in load.requests)


async def test_an_answer_that_takes_too_long_has_failed_and_keeps_nobody_waiting() -> None:
    async with clockwork(Clockwork(crowd=99)) as address:
        load = await to_thread(drive, replace(address, timeout_s=0.3), TARGET, sessions(3, 0.01))
    assert [request.error for request in load.requests] == ["no whole answer within 0.3 s"] * 3
    assert summarise(load).errors == {"no whole answer within 0.3 s": 3}


async def test_requests_are_told_of_as_they_end_and_the_collector_is_on_again_afterwards() -> None:
    told: list[str] = []
    async with clockwork(Clockwork()) as address:
        await to_thread(drive, address, TARGET, sessions(5, 0.01, turns=2), None, lambda each: told.append(each.text))
    assert told == ["w0 w1 w2 w3 "] * 10
    assert gc.isenabled()


def test_nobody_may_be_in_flight_is_no_limit() -> None:
    with pytest.raises(ConfigError, match="max_concurrency=0"):
        drive(Address.of("http://127.0.0.1:9"), TARGET, sessions(1, 0.0), 0)
