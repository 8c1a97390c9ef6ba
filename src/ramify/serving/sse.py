"""Server-sent events: the response of a stream, and the watch over clients that leave.

A stream that fails before its first event is an ordinary error response; later failures are an event of their own. A
client that goes away, or does not read for too long, cancels what was made for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ramify.serving.errors import as_api_error
from ramify.serving.limits import Limits
from ramify.serving.records import current_record

_log = logging.getLogger(__name__)
T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
_PING = b": ping\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
CLIENT_CLOSED = 499
"""What access logs show for a client that left; nobody receives it."""
encode = msgspec.json.Encoder().encode
"""Anything of plain data as JSON."""


def event(data: Any) -> bytes:
    """One event of plain data."""
    return b"data: " + encode(data) + b"\n\n"


class TextEvents(bytes):
    """Encoded events of which at least one holds what was generated: text, reasoning, or of a tool call."""


class EventStream(Response):
    """A stream of events.

    Args:
        events: encoded events; several may be joined in one piece. It is closed when the client leaves.
        ping_s: after so long a silence a comment is sent, so that no one between takes the connection for dead; also
            how long the response's head may wait for the first event, before which an error has a status of its own.
        stall_s: a client that reads nothing for so long is cut off.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], *, ping_s: float, stall_s: float) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._ping_s = ping_s
        self._stall_s = stall_s
        self._active_at = time.monotonic()
        self._sending = self._started = self._begun = False
        self._beginning = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, or leave when the client does."""
        self._raw_send = send
        await unless(self._send_all(), left(receive), self._watch())

    async def _send_all(self) -> None:
        async with aclosing(self._events) as events:
            try:
                async for piece in events:
                    await self._send(piece)
            except Exception as error:
                if not self._started:
                    raise
                await self._send(event(as_api_error(error).body()) + DONE)
        await self._raw_send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, piece: bytes) -> None:
        self._sending = True
        if not self._begun:
            await self._begin()
        await self._raw_send({"type": "http.response.body", "body": piece, "more_body": True})
        record = current_record()
        if record is not None and isinstance(piece, TextEvents):
            record.sent_text(time.perf_counter())
        self._sending, self._active_at = False, time.monotonic()

    async def _begin(self) -> None:
        """Send the head, once; a first event and a first comment may both want it."""
        async with self._beginning:
            if not self._begun:
                self._started = True
                await self._raw_send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                self._begun = True

    async def _watch(self) -> None:
        """Break a long silence; ends when the client has taken nothing for long."""
        while True:
            limit = self._stall_s if self._sending else self._ping_s
            left_s = limit - (time.monotonic() - self._active_at)
            if left_s > 0:
                await asyncio.sleep(min(left_s, self._ping_s))
            elif not self._sending:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._send(_PING), self._stall_s)
            else:
                _log.info("a client that read nothing of its stream for %s s was cut off", self._stall_s)
                return


async def unless(work: Coroutine[Any, Any, T], *ends: Coroutine[Any, Any, None]) -> T | None:
    """The result of `work`; None if one of `ends` was over first, and `work` was cancelled."""
    task = asyncio.ensure_future(work)
    others = [asyncio.ensure_future(end) for end in ends]
    try:
        await asyncio.wait((task, *others), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, *others):
            each.cancel()
        await asyncio.gather(task, *others, return_exceptions=True)


async def left(receive: Receive) -> None:
    """Ends when the client of a request whose body was read goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def answered(request: Request, work: Coroutine[Any, Any, Any]) -> Response:
    """The result of `work` as a JSON response; cancelled when the client leaves."""
    body = await unless(work, left(request.receive))
    if body is None:
        return Response(status_code=CLIENT_CLOSED)
    return Response(encode(body), media_type="application/json")


def stream(limits: Limits, events: AsyncGenerator[bytes]) -> EventStream:
    """The response of a stream, with the server's patience."""
    return EventStream(events, ping_s=limits.stream_ping_s, stall_s=limits.stall_timeout_s)
