"""The load generator and the server's own log count the same, request by request, also where the first events of a
stream say nothing yet."""

from __future__ import annotations

import asyncio
import time
from asyncio import to_thread
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ramify.engine.async_llm import AsyncLLM
from ramify.engine.outputs import CompletionOutput, RequestMetrics, RequestOutput
from ramify.serving.bench.address import Address
from ramify.serving.bench.client import Endpoint, Target
from ramify.serving.bench.drive import drive
from ramify.serving.bench.plan import Session, Turn
from ramify.serving.bench.summary import e2e_s, ttft_s
from tests.serving.in_process import serving_in_process
from tests.serving.test_observing import log_lines

SILENT_S = 0.4


def keep_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests have news at once, and text only later."""
    draw = AsyncLLM.generate

    async def generate(*given: Any, **more: Any) -> AsyncIterator[RequestOutput]:
        yield RequestOutput("r", None, [1], [CompletionOutput(0, "", [])], RequestMetrics(time.perf_counter()))
        await asyncio.sleep(SILENT_S)
        async for output in draw(*given, **more):
            yield output

    monkeypatch.setattr(AsyncLLM, "generate", generate)


async def test_the_first_text_counts_for_the_client_and_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_silent(monkeypatch)
    endpoints: tuple[Endpoint, ...] = ("chat", "completions")
    turns = [Session(0.03 * place, (Turn("3 + 4 = ?", 6, 0.0),)) for place in range(3)]
    async with serving_in_process({"nano": "nano"}) as (url, _):
        address = Address.of(url)
        await to_thread(drive, address, Target("nano"), turns[:1])  # loads the model
        with log_lines() as lines:
            loads = [
                await to_thread(drive, address, Target("nano", name, {"seed": 1, "ignore_eos": True}), turns)
                for name in endpoints
            ]
            async with asyncio.timeout(30):
                while len([line for line in lines if line["method"] == "POST"]) < 6:
                    await asyncio.sleep(0.01)
    logged = {line["request_id"]: line for line in lines}
    for load in loads:
        assert all(request.ok for request in load.requests), load.requests
        for request in load.requests:
            line, first_s, whole_s = logged[request.request_id or ""], ttft_s(request), e2e_s(request)
            assert first_s is not None
            assert whole_s is not None
            # The way there and back comes on top in what the client measures; how much it is depends on the machine.
            assert SILENT_S <= line["ttft_s"] <= first_s
            assert line["last_token_at"] - line["first_token_at"] <= whole_s - SILENT_S
