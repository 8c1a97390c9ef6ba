"""Streams: errors before and after the first event, pings, clients that leave or do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from ramify.serving.errors import ApiError
from ramify.serving.records import RequestRecord, recording
from ramify.serving.sse import DONE, EventStream, TextEvents, event, unless

Message = dict[str, Any]
SCOPE: Any = {"type": "http"}


class Client:
    """The other end of a connection: takes what is sent, leaves when told."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        self.sent.append(dict(message))

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def counting(closed: list[bool], error: Exception | None = None) -> AsyncGenerator[bytes]:
    """Two events, then an error or silence."""
    try:
        yield event({"n": 1})
        yield event({"n": 2})
        if error is not None:
            raise error
        await asyncio.Event().wait()
    finally:
        closed.append(True)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


async def test_a_stream_is_sent_and_ended() -> None:
    async def events() -> AsyncGenerator[bytes]:
        yield event({"n": 1})
        yield DONE

    client = Client()
    await EventStream(events(), ping_s=9, stall_s=9)(SCOPE, client.receive, client.send)
    assert client.sent[0]["status"] == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in client.sent[0]["headers"]
    assert client.body == b'data: {"n":1}\n\ndata: [DONE]\n\n'
    assert client.sent[-1]["more_body"] is False


async def test_the_record_is_told_when_text_was_sent_and_not_when_anything_was() -> None:
    record = RequestRecord("r-1", "POST", "/v1/chat/completions")
    seen: list[tuple[float | None, float | None]] = []

    async def events() -> AsyncGenerator[bytes]:
        for piece in (event({"role": 1}), TextEvents(event({"text": 1})), TextEvents(event({"text": 2})), DONE):
            yield piece
            seen.append((record.first_sent_s, record.last_sent_s))

    client = Client()
    with recording(record):
        await EventStream(events(), ping_s=9, stall_s=9)(SCOPE, client.receive, client.send)
    assert seen[0] == (None, None)
    first_s, later_s = seen[1][0], seen[2][1]
    assert first_s is not None
    assert later_s is not None
    assert first_s < later_s
    assert seen[1:] == [(first_s, first_s), (first_s, later_s), (first_s, later_s)]


async def test_an_error_before_the_first_event_has_a_status_of_its_own() -> None:
    async def events(fails: bool = True) -> AsyncGenerator[bytes]:
        if fails:
            raise ApiError(429, "later")
        yield b""

    client = Client()
    with pytest.raises(ApiError, match="later"):
        await EventStream(events(), ping_s=9, stall_s=9)(SCOPE, client.receive, client.send)
    assert client.sent == []


async def test_an_error_in_mid_stream_is_an_event_and_the_end() -> None:
    closed: list[bool] = []
    client = Client()
    stream = EventStream(counting(closed, ApiError(503, "lost")), ping_s=9, stall_s=9)
    await stream(SCOPE, client.receive, client.send)
    *_, failed, done = client.body.strip().split(b"\n\n")
    assert b'"message":"lost"' in failed
    assert done == b"data: [DONE]"
    assert closed == [True]


async def test_a_client_that_leaves_ends_what_was_made_for_it() -> None:
    closed: list[bool] = []
    client = Client()
    running = asyncio.create_task(
        EventStream(counting(closed), ping_s=9, stall_s=9)(SCOPE, client.receive, client.send)
    )
    await until(lambda: len(client.sent) == 3)
    assert not closed
    client.gone.set()
    await running
    assert closed == [True]


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    closed: list[bool] = []
    client = Client()
    client.reads.clear()
    await EventStream(counting(closed), ping_s=0.01, stall_s=0.02)(SCOPE, client.receive, client.send)
    assert closed == [True]
    assert client.sent == []


async def test_silence_is_broken_by_comments() -> None:
    client = Client()
    running = asyncio.create_task(EventStream(counting([]), ping_s=0.01, stall_s=9)(SCOPE, client.receive, client.send))
    await until(lambda: client.body.count(b": ping\n\n") >= 2)
    client.gone.set()
    await running


async def test_work_that_fails_fails_for_its_caller() -> None:
    async def work() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        await unless(work(), asyncio.Event().wait())  # type: ignore[arg-type]
