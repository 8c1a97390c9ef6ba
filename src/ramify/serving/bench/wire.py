"""`Wire`: all connections to the loaded server, and the one wait for whatever comes on them.

Connections are opened by threads, ahead of need, so that a request that is due finds one that is warm. One thread sends
and reads.
"""

from __future__ import annotations

import resource
import selectors
import socket
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from ramify.serving.bench.address import Address
from ramify.serving.bench.connection import Connection, Exchange

_OPENERS = 8
_SPARE_FILES = 64


class Wire:
    """Exchanges with one server.

    Args:
        address: of the server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._most = _room_for_connections()
        self._selector = selectors.DefaultSelector()
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._wanting: deque[Exchange] = deque()
        self._opening = 0
        self._opened: deque[Future[socket.socket]] = deque()
        self._openers = ThreadPoolExecutor(_OPENERS, "bench-connect")
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def close(self) -> None:
        """End all connections."""
        self._openers.shutdown(wait=True, cancel_futures=True)
        for future in self._opened:
            if not future.cancelled() and future.exception() is None:
                future.result().close()
        for connection in self._open:
            connection.socket.close()
        self._selector.close()
        self._bell.close()
        self._ringer.close()

    def warm(self, count: int) -> None:
        """Wait until so many connections are idle, or as many as can be opened are."""
        for _ in range(count - len(self._idle) - self._opening):
            self._connect()
        while self._opening:
            self.wait(None)

    def keep_spare(self, count: int) -> None:
        """Open one more in the background if fewer are idle."""
        if len(self._idle) + self._opening < count:
            self._connect()

    def start(self, exchange: Exchange) -> None:
        """Send a request: now if a connection is idle, or else on the next one."""
        if self._idle:
            self._send(self._idle.pop(), exchange)
            return
        self._wanting.append(exchange)
        if self._opening < len(self._wanting):
            self._connect()

    def give_up(self, exchange: Exchange, reason: str) -> None:
        """End an exchange that takes too long."""
        exchange.error = reason
        if exchange in self._wanting:
            self._wanting.remove(exchange)
            exchange.on_end(exchange)
        for connection in list(self._open):
            if connection.exchange is exchange:
                connection.reusable, connection.idle_since_s = False, None
                self._end(connection)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for something to come, and take it; says whether anything did. None waits for ever, 0 not at all."""
        ready = self._selector.select(timeout_s)
        for key, events in ready:
            if key.data is None:
                self._take_opened()
            elif key.data in self._open:
                self._serve(key.data, events)
        return bool(ready)

    def _connect(self) -> None:
        if len(self._open) + self._opening >= self._most:
            return  # whoever wants one gets it when another has ended
        self._opening += 1
        self._openers.submit(self._address.connect).add_done_callback(self._ring)

    def _ring(self, future: Future[socket.socket]) -> None:
        """On an opener's thread: tell the one that waits."""
        self._opened.append(future)
        self._ringer.send(b".")

    def _take_opened(self) -> None:
        self._bell.recv(4096)
        while self._opened:
            future = self._opened.popleft()
            self._opening -= 1
            error = future.exception()
            if error is None:
                connection = Connection(future.result())
                self._open.add(connection)
                self._selector.register(connection.socket, selectors.EVENT_READ, connection)
                self._release(connection)
            elif not isinstance(error, OSError):
                raise error
            elif self._wanting:
                exchange = self._wanting.popleft()
                exchange.error = f"no connection to {self._address}: {error}"
                exchange.on_end(exchange)

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        try:
            if not connection.send(exchange):
                self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        except OSError as error:
            self._break(connection, error)

    def _serve(self, connection: Connection, events: int) -> None:
        """Read what came, or write what there is room for."""
        try:
            if events & selectors.EVENT_READ:
                if connection.receive():
                    self._end(connection)
            elif connection.send_rest():
                self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
        except OSError as error:
            self._break(connection, error)

    def _break(self, connection: Connection, error: OSError) -> None:
        connection.reusable = False
        if connection.exchange is not None:
            connection.exchange.error = f"the connection broke: {type(error).__name__}: {error}"
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        """What was on a connection is over. A request that met the server's closing of an idle connection goes anew."""
        exchange, stale = connection.exchange, connection.stale
        connection.exchange = None
        if connection.reusable:
            self._release(connection)
        else:
            self._drop(connection)
        if exchange is None:
            return
        if exchange.error is not None and stale:
            exchange.error = None
            self.start(exchange)
        else:
            exchange.on_end(exchange)

    def _release(self, connection: Connection) -> None:
        """A connection is free: for whoever wants one, or for later."""
        connection.rest()
        if self._wanting:
            self._send(connection, self._wanting.popleft())
        else:
            self._idle.append(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if self._wanting and self._opening < len(self._wanting):
            self._connect()  # there is room for one more now


def _room_for_connections() -> int:
    """How many may be open: as many as the system lets this process have files, less those that others need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else max(1, hard - _SPARE_FILES)
