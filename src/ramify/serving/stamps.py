"""When bytes came. Linux tells when it took them from the network, however late this program reads them; elsewhere, and
under TLS, the time of reading stands for it."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import time

READ_BYTES = 65536
_SO_TIMESTAMPNS = 35
"""Of Linux on every architecture that this package is built for; Python has no name for it."""
_TIMESPEC = struct.Struct("@ll")
_LATEST_S = 60.0
"""A stamp further from now than this was made before the clock was set."""


def ask_for_stamps(connected: socket.socket) -> bool:
    """Have the system stamp what comes on a connection; says whether it will."""
    if isinstance(connected, ssl.SSLSocket) or not sys.platform.startswith("linux"):
        return False
    try:
        connected.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False  # a system that only speaks like Linux: the time of reading is still a true one
    return True


def receive(connected: socket.socket, stamped: bool) -> tuple[float, bytes]:
    """What there is, with its time of `time.perf_counter`: of several packets, that of the last.

    Raises:
        OSError: nothing is there yet, or the connection is broken.
    """
    if not stamped:
        data = connected.recv(READ_BYTES)
        return time.perf_counter(), data
    data, notes, _, _ = connected.recvmsg(READ_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
    now_s = time.perf_counter()
    for level, kind, stamp in notes:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(stamp) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(stamp)
            ago_s = (time.time_ns() - seconds * 1_000_000_000 - nanoseconds) / 1e9
            return now_s - ago_s if 0 <= ago_s < _LATEST_S else now_s, data
    return now_s, data


def holds_more(connected: socket.socket) -> bool:
    """Whether TLS has decrypted what was not read yet: no selector would tell."""
    return isinstance(connected, ssl.SSLSocket) and connected.pending() > 0
