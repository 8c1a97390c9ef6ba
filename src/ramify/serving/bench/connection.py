"""One connection and the one exchange that is on it: bytes out, bytes in, each read with its time.

Of what comes only HTTP's own framing is looked at here; what an answer says is read later.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools

from ramify.serving.stamps import READ_BYTES, ask_for_stamps, holds_more, receive

IDLE_FOR_LONG_S = 1.0
"""Servers keep idle connections for seconds at least."""
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(slots=True)
class Exchange:
    """A request and its answer. Times are of `time.perf_counter`.

    Attributes:
        data: the request as bytes.
        on_end: called once, when the answer is whole or has failed.
        sent_s: when its first byte was handed to the system.
        status: of HTTP; None if no answer came.
        headers: of the answer; names in lower case.
        pieces: the body as it came.
        error: why there is no whole answer.
    """

    data: bytes
    on_end: Callable[[Exchange], None]
    sent_s: float | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    error: str | None = None


class Connection:
    """A connection that is open.

    Args:
        connected: a socket that does not block.

    Attributes:
        socket: of it.
        exchange: that is on it; None while it is idle.
        reusable: whether another exchange may follow.
        idle_since_s: since when it was idle before this exchange; None if it was not.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.exchange: Exchange | None = None
        self.reusable = True
        self.idle_since_s: float | None = None
        self._stamped = ask_for_stamps(connected)
        self._parser = httptools.HttpResponseParser(self)
        self._unsent = memoryview(b"")
        self._now_s = 0.0
        self._whole = self._heard = False

    def rest(self) -> None:
        """What was on it is over, and what comes next is not there yet."""
        self.idle_since_s = time.perf_counter()
        self._parser = httptools.HttpResponseParser(self)

    def send(self, exchange: Exchange) -> bool:
        """Begin an exchange; says whether all of the request is out (if not: `send_rest` once it can be written to).

        Raises:
            OSError: the connection is broken.
        """
        self.exchange, self._whole, self._heard = exchange, False, False
        self._unsent = memoryview(exchange.data)
        exchange.sent_s = time.perf_counter()
        return self.send_rest()

    def send_rest(self) -> bool:
        """Go on sending.

        Raises:
            OSError: the connection is broken.
        """
        while self._unsent:
            try:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
            except _NOT_NOW:
                return False
        return True

    @property
    def stale(self) -> bool:
        """Whether a request seems to have met the server's closing of a connection that was idle for long: nothing at
        all came of it. That it ended says nothing of the server then."""
        exchange = self.exchange
        if exchange is None or exchange.sent_s is None or self.idle_since_s is None or self._heard:
            return False
        return not self.reusable and exchange.sent_s - self.idle_since_s >= IDLE_FOR_LONG_S

    def receive(self) -> bool:
        """Take what is there; says whether the exchange is over, well or not (its `error` tells).

        Raises:
            OSError: the connection is broken.
        """
        while True:
            try:
                self._now_s, data = receive(self.socket, self._stamped)
            except _NOT_NOW:
                return False
            if not data:
                self._closed()
                return True
            self._heard = True
            if self._parse(data):
                return True
            if len(data) < READ_BYTES and not holds_more(self.socket):
                return False

    def _parse(self, data: bytes) -> bool:
        exchange = self.exchange
        if exchange is None:  # an idle connection has nothing to say but that it ends
            self.reusable = False
            return True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reusable = False
            if not self._whole:
                exchange.error = f"the answer is no HTTP: {error or type(error).__name__}"
            return True
        return self._whole

    def _closed(self) -> None:
        """The server has closed the connection: the end of an answer of unknown length, and of no other."""
        self.reusable = False
        exchange = self.exchange
        if exchange is None:
            return
        framed = "content-length" in exchange.headers or "chunked" in exchange.headers.get("transfer-encoding", "")
        if exchange.status is None or framed:
            exchange.error = "the server closed the connection before the answer was whole"

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        if self.exchange is not None:
            self.exchange.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Its head is whole; heads below 200 come before the true one."""
        status = self._parser.get_status_code()
        if self.exchange is None or self._whole:
            return
        if status < 200:
            self.exchange.headers.clear()
        else:
            self.exchange.status = status

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        if self.exchange is not None and not self._whole:
            self.exchange.pieces.append((self._now_s, body))

    def on_message_complete(self) -> None:
        """It is whole."""
        if self.exchange is not None and self.exchange.status is not None and not self._whole:
            self._whole = True
            self.reusable = self._parser.should_keep_alive()
