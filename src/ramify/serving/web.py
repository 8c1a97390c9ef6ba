"""A port of the server: its socket, and uvicorn on it with our protocol, our signals and our log."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from ssl import SSLContext

import uvicorn
from starlette.types import ASGIApp

from ramify.errors import ConfigError
from ramify.serving.http_protocol import bounded_protocol
from ramify.serving.limits import Limits

BACKLOG = 2048
_OWNER_AND_GROUP = 0o660


class WebServer(uvicorn.Server):
    """One port, from the moment that its socket is bound; whoever made it handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield


def web_server(app: ASGIApp, limits: Limits, tls: SSLContext | None = None) -> WebServer:
    """Uvicorn for an application that was started already."""
    config = uvicorn.Config(
        app,
        http=bounded_protocol(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=int(limits.keep_alive_s),
        ssl_context_factory=None if tls is None else lambda config, default: tls,
    )
    return WebServer(config)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address, before anything slow is done: a port that is taken is known at once.

    Raises:
        ConfigError: it cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise ConfigError(f"port {port} on {host} cannot be taken ({error}): choose another port or address") from error
    return bound


def listening_unix_socket(path: str) -> socket.socket:
    """The same for a path; what a dead server left there is replaced. Its owner and group may connect.

    Raises:
        ConfigError: it cannot be bound.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead_socket(Path(path))
        bound.bind(path)
        os.chmod(path, _OWNER_AND_GROUP)
    except OSError as error:
        bound.close()
        raise ConfigError(f"uds {path!r} cannot be taken ({error}): choose another path") from error
    return bound


def _remove_dead_socket(path: Path) -> None:
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def address_of(bound: socket.socket, tls: bool) -> str:
    """The URL under which a bound socket is reached."""
    if bound.family == socket.AF_UNIX:
        return f"unix:{bound.getsockname()}"
    host, port = bound.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
