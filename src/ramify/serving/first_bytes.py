"""When a request came: the system's own stamp of its first bytes, which a busy loop does not delay.

Transports read without the stamp. So a connection that waits for a request is read here, and by its transport from
there on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from ramify.serving.stamps import ask_for_stamps, receive


class FirstBytes:
    """Reads the first bytes of the requests of one connection.

    Args:
        connected: the connection, a file of its own.
        transport: of the connection.
        received: called with when bytes came, of `time.perf_counter`, and the bytes.
    """

    def __init__(
        self, connected: socket.socket, transport: asyncio.Transport, received: Callable[[float, bytes], None]
    ) -> None:
        self._socket = connected
        self._transport = transport
        self._received = received
        self._loop = asyncio.get_running_loop()

    @classmethod
    def of(cls, transport: asyncio.Transport, received: Callable[[float, bytes], None]) -> FirstBytes | None:
        """For a connection whose bytes have stamps; None under TLS, on other systems, and if no file is left."""
        if transport.get_extra_info("ssl_object") is not None:
            return None
        try:
            connected = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        except OSError:
            return None
        if not ask_for_stamps(connected):
            connected.close()
            return None
        return cls(connected, transport, received)

    def wait(self) -> None:
        """Read what comes next."""
        self._transport.pause_reading()
        self._loop.add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """The connection has gone."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        try:
            came_s, data = receive(self._socket, stamped=True)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # the transport meets the same
        self._loop.remove_reader(self._socket.fileno())
        if self._transport.is_closing():
            return
        self._transport.resume_reading()
        if data:
            self._received(came_s, data)
