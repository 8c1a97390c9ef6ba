"""What a server does when its engine is killed and when it is told to end: real processes, streams under way."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ramify.serving import launch
from ramify.serving.draining import Draining
from ramify.serving.errors import ApiError
from ramify.serving.launch import Stop

QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
STREAM = {"model": "nano", "prompt": QUESTION, "max_tokens": 200, "ignore_eos": True, "stream": True}


@dataclass
class Process:
    """`ramify serve` in a process of its own, and what it logged so far."""

    process: asyncio.subprocess.Process
    url: str
    log: list[str] = field(default_factory=list)

    async def follow(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode())


@asynccontextmanager
async def a_process(*flags: str) -> AsyncIterator[Process]:
    command = [str(Path(sys.executable).parent / "ramify"), "serve", "nano", "--port", "0", "--storage-url", ":memory:"]
    process = await asyncio.create_subprocess_exec(
        *command, "--log-format", "json", *flags, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert process.stderr is not None
    log = []
    try:
        while True:
            line = (await process.stderr.readline()).decode()
            assert line, "".join(log)
            log.append(line)
            if found := re.search(r"serves nano at (http://\S+);", line):
                break
        server = Process(process, found[1], log)
        follower = asyncio.create_task(server.follow())
        yield server
        await process.wait()
        await follower
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def stream(http: httpx2.AsyncClient, begun: asyncio.Event) -> list[str]:
    """The events of one long answer."""
    events = []
    async with http.stream("POST", "/v1/completions", json=STREAM) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
                begun.set()
    return events


async def kill_the_engine(server: Process, http: httpx2.AsyncClient) -> None:
    """Streams end with an error that says so; health, readiness and metrics show it; then all is well again."""
    begun = [asyncio.Event() for _ in range(3)]
    streams = [asyncio.create_task(stream(http, each)) for each in begun]
    await asyncio.gather(*(each.wait() for each in begun))
    (engine,) = psutil.Process(server.process.pid).children()
    engine.kill()
    for events in await asyncio.gather(*streams):
        assert events[-1] == "[DONE]"
        error = json.loads(events[-2])["error"]
        assert (error["code"], error["type"]) == ("engine_restarted", "server_error")
        assert "try again" in error["message"]
        assert str(engine.pid) not in error["message"]
    for path in ("/health", "/ready"):
        dead = await http.get(path)
        assert (dead.status_code, dead.json()["models"]) == (503, {"nano": "restarting"})
    assert samples(await http.get("/metrics"))["ramify:engine_up", "nano"] == 0
    whole = await http.post("/v1/completions", json={**STREAM, "stream": False, "max_tokens": 5})
    assert whole.status_code == 200  # it waited for the new engine
    assert (await http.get("/ready")).status_code == (await http.get("/health")).status_code == 200
    seen = samples(await http.get("/metrics"))
    assert (seen["ramify:engine_up", "nano"], seen["ramify:engine_restarts_total", "nano"]) == (1, 1)
    assert seen["vllm:request_success_total", "nano"] >= 1


def samples(answer: httpx2.Response) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("model_name", "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def drain(server: Process, http: httpx2.AsyncClient) -> None:
    """Nobody new is let in, and everybody inside gets a whole answer."""
    begun = [asyncio.Event() for _ in range(4)]
    streams = [asyncio.create_task(stream(http, each)) for each in begun]
    await asyncio.gather(*(each.wait() for each in begun))
    server.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        while (await http.get("/ready")).status_code != 503:
            await asyncio.sleep(0.005)
    assert not any(each.done() for each in streams)
    assert (await http.get("/health")).status_code == 200
    refused = await http.post("/v1/completions", json={**STREAM, "stream": False})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) >= 1
    for events in await asyncio.gather(*streams):
        assert events[-1] == "[DONE]"
        choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
        assert choices[-1]["finish_reason"] == "length"
    assert await server.process.wait() == 0


async def test_a_killed_engine_is_told_of_and_replaced_and_a_signal_lets_every_answer_end() -> None:
    async with (
        a_process("--drain-timeout-s", "60") as server,
        httpx2.AsyncClient(base_url=server.url, timeout=120) as http,
    ):
        await kill_the_engine(server, http)
        await drain(server, http)
    lines = [json.loads(line) for line in server.log]
    completions = [line for line in lines if line.get("route") == "/v1/completions"]
    assert [line.get("code") for line in completions].count("engine_restarted") == 3
    assert [line.get("code") for line in completions].count("draining") == 1
    assert not any("every number exactly once" in line for line in server.log)


async def test_a_second_signal_ends_the_drain_at_once() -> None:
    draining, stop = Draining(timeout_s=600), Stop()
    server = SimpleNamespace(draining=draining, config=SimpleNamespace(drain_timeout_s=600.0))
    stop.signalled(signal.SIGTERM)
    with draining.request():
        ending = asyncio.create_task(launch._drain(server, stop))  # type: ignore[arg-type]
        await draining.started.wait()
        assert not ending.done()
        stop.signalled(signal.SIGTERM)
        await ending
    assert stop.code == 128 + signal.SIGTERM


async def test_draining_waits_for_those_who_are_inside_and_not_longer_than_it_may() -> None:
    draining = Draining(timeout_s=0.05)
    with draining.request():
        assert draining.running == 1
        assert not await draining.drain()
        with pytest.raises(ApiError) as refused, draining.request():
            pass
        assert (refused.value.status, refused.value.headers["connection"]) == (503, "close")
    assert await draining.drain()
