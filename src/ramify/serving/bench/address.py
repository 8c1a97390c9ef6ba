"""Where the loaded server is, and how a request to it looks on the wire."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ramify.errors import ConfigError

CONNECT_TIMEOUT_S = 30.0
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A server.

    Attributes:
        host, port: where it listens.
        host_header: as it is named in requests.
        prefix: what its paths begin with, before ``/v1``.
        tls: how its certificate is checked; None speaks plain HTTP.
        api_key: sent as a bearer token; empty sends none.
        timeout_s: after which a request has failed.
    """

    host: str
    port: int
    host_header: str
    prefix: str = ""
    tls: ssl.SSLContext | None = None
    api_key: str = field(default="", repr=False)
    timeout_s: float = 600.0

    @classmethod
    def of(cls, base_url: str, api_key: str = "", timeout_s: float = 600.0) -> Address:
        """From a URL, with or without its ``/v1``.

        Raises:
            ConfigError: it is no URL of an HTTP server, the key cannot be sent, or the time is not positive.
        """
        parts = urlsplit(base_url)
        try:
            port = parts.port or _PORTS[parts.scheme]
        except (KeyError, ValueError):
            port = 0
        if not parts.hostname or not port or not base_url.isprintable() or parts.query or parts.fragment:
            raise ConfigError(f"base_url={base_url!r} does not work: write it as http://127.0.0.1:8000")
        if not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError("api_key holds characters that no header can: check OPENAI_API_KEY")
        if not timeout_s > 0:
            raise ConfigError(f"timeout={timeout_s} does not work: it must be more than 0")
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(parts.hostname, port, parts.netloc.rpartition("@")[2], prefix, tls, api_key, timeout_s)

    def __str__(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.host_header}{self.prefix}"

    def request(self, path: str, body: bytes | None = None) -> bytes:
        """A whole request: a POST of JSON, or a GET without a body."""
        lines = [f"{'GET' if body is None else 'POST'} {self.prefix}{path} HTTP/1.1", f"Host: {self.host_header}"]
        lines += ["Accept: */*", "Accept-Encoding: identity", "User-Agent: ramify-bench"]
        if self.api_key:
            lines.append(f"Authorization: Bearer {self.api_key}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + (body or b"")

    def connect(self) -> socket.socket:
        """A connection that is ready to be written to and does not block; this call does.

        Raises:
            OSError: there is nobody, or its certificate is not to be trusted.
        """
        connected = socket.create_connection((self.host, self.port), min(CONNECT_TIMEOUT_S, self.timeout_s))
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                connected = self.tls.wrap_socket(connected, server_hostname=self.host)
            connected.setblocking(False)
        except BaseException:
            connected.close()
            raise
        return connected
