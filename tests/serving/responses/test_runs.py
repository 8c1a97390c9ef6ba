"""Runs of responses over a chat that the test controls: the background, owners, ends of every kind, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ramify.errors import EngineError, PromptTooLongError, RequestError
from ramify.sampling import SamplingParams
from ramify.serving import chat, chat_stream
from ramify.serving.auth import Caller
from ramify.serving.draining import Draining
from ramify.serving.errors import ApiError
from ramify.serving.limits import Limits
from ramify.serving.protocol.responses import ResponseRequest
from ramify.serving.responses import ResponseRuns
from ramify.serving.responses.background import BackgroundRun
from ramify.serving.storage import Storage

ME, OTHER = Caller("me", "me"), Caller("other", "other")


class FakeChat:
    """Answers "Hello!" in two pieces; waits for `go` between them, and may fail."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.asked: list[Any] = []
        self.open = 0

    async def chunks(self, server: Any, caller: Caller, body: Any, name: str) -> AsyncGenerator[list[dict[str, Any]]]:
        self.asked.append(body)
        self.open += 1
        try:
            yield [_chunk({"role": "assistant", "content": ""}), _chunk({"content": "Hel"})]
            await self.go.wait()
            if self.error is not None:
                raise self.error
            yield [_chunk({"content": "lo!"}), _chunk({}, "stop")]
        finally:
            self.open -= 1

    @asynccontextmanager
    async def check(self, *given: Any) -> AsyncIterator[Any]:
        length = sum(len(str(message.content)) for message in given[2].messages)
        prompt = SimpleNamespace(given=SimpleNamespace(ids=(0,) * length))
        yield SimpleNamespace(prompt=prompt, model=SimpleNamespace(max_model_len=100), params=SamplingParams())


def _chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}]}


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> FakeChat:
    made = FakeChat()
    monkeypatch.setattr(chat_stream, "chat_chunks", made.chunks)
    monkeypatch.setattr(chat, "asked_chat", made.check)
    return made


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[ResponseRuns]:
    """A server's responses, on a database that outlives it."""
    async with Storage(f"sqlite:///{path}/ramify.db") as storage:
        config = SimpleNamespace(storage_url="", max_waiting=2, limits=Limits())
        runs = ResponseRuns(SimpleNamespace(storage=storage, config=config, draining=Draining(1.0)))  # type: ignore[arg-type]
        try:
            yield runs
        finally:
            await runs.close()


def request(**given: Any) -> ResponseRequest:
    return ResponseRequest.model_validate({"model": "nano", "input": "hi", **given})


def text(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


async def begun(runs: ResponseRuns, fake: FakeChat) -> BackgroundRun:
    """A background response that has said "Hel"."""
    run = await runs.start(ME, request(background=True))
    async for piece in run.follow():
        if b'"delta":"Hel"' in piece:
            break
    return run


async def test_what_is_whole_is_stored_with_its_conversation(fake: FakeChat, tmp_path: Path) -> None:
    fake.go.set()
    async with running(tmp_path) as runs:
        first = await runs.complete(ME, request())
        assert (first["status"], text(first)) == ("completed", "Hello!")
    async with running(tmp_path) as runs:
        assert await runs.get(ME, first["id"]) == first
        second = await runs.complete(ME, request(input="more", previous_response_id=first["id"]))
        assert [message.role for message in fake.asked[1].messages] == ["user", "assistant", "user"]
        assert len(await runs.input_items(ME, second["id"])) == 3


async def test_no_tenant_sees_anothers_responses(fake: FakeChat, tmp_path: Path) -> None:
    async with running(tmp_path) as runs:
        live = await begun(runs, fake)
        fake.go.set()
        stored = await runs.complete(ME, request())
        for response_id in (live.turn.id, stored["id"]):
            for work in (
                runs.get(OTHER, response_id),
                runs.input_items(OTHER, response_id),
                runs.cancel(OTHER, response_id),
                runs.delete(OTHER, response_id),
                runs.complete(OTHER, request(previous_response_id=response_id)),
            ):
                with pytest.raises(ApiError, match="there is no response"):
                    await work
            with pytest.raises(ApiError, match="no events"):
                runs.follow(OTHER, response_id, None)
        assert text(await runs.get(ME, live.turn.id)).startswith("Hel")


async def test_a_background_response_shows_what_came_and_goes_on_to_its_end(fake: FakeChat, tmp_path: Path) -> None:
    async with running(tmp_path) as runs:
        run = await begun(runs, fake)
        shown = await runs.get(ME, run.turn.id)
        assert (shown["status"], text(shown)) == ("in_progress", "Hel")
        with pytest.raises(RequestError, match="has not ended"):
            await runs.complete(ME, request(previous_response_id=run.turn.id))
        await run.save()
        fake.go.set()
        pieces = [piece async for piece in runs.follow(ME, run.turn.id, None)]
        assert b"event: response.completed\n" in pieces[-1]
        assert text(await runs.get(ME, run.turn.id)) == "Hello!"
        again = b"".join([piece async for piece in runs.follow(ME, run.turn.id, 2)])
        assert again == b"".join(pieces)[-len(again) :]
        assert b'"sequence_number":3' in again.split(b"\n\n")[0]


async def test_cancelling_closes_the_chat_and_keeps_what_came(fake: FakeChat, tmp_path: Path) -> None:
    async with running(tmp_path) as runs:
        run = await begun(runs, fake)
        cancelled = await runs.cancel(ME, run.turn.id)
        assert fake.open == 0
        assert (cancelled["status"], text(cancelled)) == ("cancelled", "Hel")
        assert await runs.cancel(ME, run.turn.id) == cancelled
        stored = await runs.start(ME, request(background=True))
        await runs.delete(ME, stored.turn.id)
        assert fake.open == 0
        with pytest.raises(ApiError):
            await runs.get(ME, stored.turn.id)
        fake.go.set()
        with pytest.raises(RequestError, match="no background response"):
            await runs.cancel(ME, (await runs.complete(ME, request()))["id"])


async def test_a_server_that_ends_marks_what_it_leaves(fake: FakeChat, tmp_path: Path) -> None:
    async with running(tmp_path) as runs:
        run = await begun(runs, fake)
    assert fake.open == 0
    async with running(tmp_path) as runs:
        left = await runs.get(ME, run.turn.id)
        assert (left["status"], left["error"]["code"], text(left)) == ("failed", "server_error", "Hel")


async def test_a_failure_is_told_in_the_stream_and_by_the_background_response(fake: FakeChat, tmp_path: Path) -> None:
    fake.go.set()
    fake.error = EngineError("insides")
    async with running(tmp_path) as runs:
        with pytest.raises(EngineError):
            await runs.complete(ME, request())
        last = [piece async for piece in runs.stream(ME, request())][-1]
        assert last.startswith(b"event: response.failed\n")
        assert b"insides" not in last
        run = await runs.start(ME, request(background=True))
        _ = [piece async for piece in run.follow()]
        assert (await runs.get(ME, run.turn.id))["status"] == "failed"


async def test_leaving_a_stream_closes_the_chat_and_stores_nothing(fake: FakeChat, tmp_path: Path) -> None:
    async with running(tmp_path) as runs:
        stream = runs.stream(ME, request())
        assert b"response.created" in await anext(stream)
        await stream.aclose()
        assert fake.open == 0


async def test_background_responses_are_checked_and_counted_before_they_start(fake: FakeChat, tmp_path: Path) -> None:
    async with running(tmp_path) as runs:
        with pytest.raises(PromptTooLongError, match="the model's context is 100"):
            await runs.start(ME, request(background=True, input="x" * 200))
        for _ in range(2):
            await runs.start(ME, request(background=True))
        with pytest.raises(ApiError) as raised:
            await runs.start(ME, request(background=True))
        assert raised.value.status == 429
        assert raised.value.headers["retry-after"]
