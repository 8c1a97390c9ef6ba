"""HTTP/1.1 with bounds on what uvicorn leaves open: slow or endless headers, unread answers, too many connections."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ramify.serving.errors import ApiError
from ramify.serving.first_bytes import FirstBytes
from ramify.serving.limits import Limits

BEGAN = "began_s"
"""In the scope's state: when the request's first byte came, of `time.perf_counter`."""


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol of one port, for uvicorn's option ``http``."""

    class Bounded(BoundedProtocol):
        bounds = limits

    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        bounds: what it may take.
    """

    bounds: Limits

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_headers = True
        self._in_body = False
        self._in_message = False
        self._began = False
        self._came_s: float | None = None
        self._first_bytes: FirstBytes | None = None
        self._header_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            self._refuse(503, "the server has as many connections as it takes: try again", {"retry-after": "1"})
        else:
            self._set_deadline(self.bounds.header_timeout_s)
            self._first_bytes = FirstBytes.of(transport, self._first_received)
            self.loop.call_soon(self._wait_for_request)  # transports begin to read after this call

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._set_deadline(None)
        self._set_stalled(None)
        if self._first_bytes is not None:
            self._first_bytes.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came. Headers that do not end are counted as they come, for the parser would hold all of them."""
        was_in_headers, self._began = self._in_headers, False
        super().data_received(data)
        if was_in_headers and self._in_headers and not self._began:
            self._header_bytes += len(data)
            if self._header_bytes > self.bounds.max_header_bytes:
                self._refuse(431, "the request's headers are too long: send fewer, or shorter ones")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(400, "this is not valid HTTP")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["state"][BEGAN] = time.perf_counter() if self._came_s is None else self._came_s
        self._in_headers, self._in_body, self._began, self._header_bytes = True, False, True, 0
        self._in_message = True
        if self._deadline is None:
            self._set_deadline(self.bounds.header_timeout_s)

    def on_headers_complete(self) -> None:
        """Its headers are whole."""
        self._in_headers, self._in_body = False, True
        self._set_deadline(None)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Its body is whole."""
        self._in_body = self._in_message = False
        self._set_deadline(None)
        super().on_message_complete()
        self._wait_for_request()

    def on_response_complete(self) -> None:
        """Its answer is out; what still comes of its body is thrown away, but not for ever."""
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._set_deadline(self.bounds.body_timeout_s)
        self._wait_for_request()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""
        super().pause_writing()
        self._set_stalled(self.bounds.stall_timeout_s)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._set_stalled(None)
        super().resume_writing()

    def _wait_for_request(self) -> None:
        """Nothing is under way: what comes next is a request."""
        answered = self.cycle is None or self.cycle.response_complete
        if self._first_bytes is not None and answered and not self._in_message and not self.transport.is_closing():
            self._first_bytes.wait()

    def _first_received(self, came_s: float, data: bytes) -> None:
        self._came_s = came_s
        self.data_received(data)
        self._came_s = None

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _set_stalled(self, seconds: float | None) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        self._stalled = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    def _late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._set_deadline(self.bounds.header_timeout_s)  # it sent ahead and waits for us
        elif self._in_headers:
            self._refuse(408, "the request's headers did not arrive in time")
        else:
            self.transport.abort()

    def _refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer on the protocol's own, and end the connection."""
        if self.transport.is_closing():
            return
        body = json.dumps(ApiError(status, message).body()).encode()
        given = {"content-type": "application/json", "connection": "close", **(headers or {})}
        lines = [f"{name}: {text}\r\n".encode() for name, text in given.items()]
        self.transport.write(
            b"".join([STATUS_LINE[status], *lines, f"content-length: {len(body)}\r\n\r\n".encode(), body])
        )
        self.transport.close()
