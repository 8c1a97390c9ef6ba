"""`Edge`: what every request passes before anything of it is parsed. Pure ASGI, around the whole application.

In this order: the headers' size, the Host and Origin it names, the key, the key's rate, the kind, size, pace and depth
of the body. Paths that do not exist pass it too, so that they tell nothing to whoever has no key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ramify.serving.api.page import PAGE_PATHS
from ramify.serving.auth import Caller, presented_token
from ramify.serving.bodies import UPLOAD_PATHS, Body, Room, check_json, check_kind, too_long
from ramify.serving.config import ServerConfig, is_loopback
from ramify.serving.errors import ApiError
from ramify.serving.limits import Limits
from ramify.serving.rates import RATE_HEADERS
from ramify.serving.server import Server

PROBES = frozenset({"/health", "/ping", "/ready"})
"""Whether the server lives, in a word."""
OPEN_PATHS = PROBES | PAGE_PATHS
"""What answers without a key: the probes, and the files of the page, which are those of the package."""
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
Gate = Callable[[bytes | None], Caller]
"""Who sent a token (None: no token); raises ApiError for nobody."""


@dataclass(frozen=True, slots=True)
class EdgeRules:
    """What one port lets through.

    Attributes:
        gate: who calls.
        limits: of requests.
        hosts: what Host may say; empty is anything.
        origins: web pages that may call besides the server's own.
        open_paths: need no key.
    """

    gate: Gate
    limits: Limits
    hosts: Callable[[], frozenset[str]] = frozenset
    origins: frozenset[str] = frozenset()
    open_paths: frozenset[str] = OPEN_PATHS


class Edge:
    """The middleware.

    Args:
        app: what is behind it.
        rules: what it lets through.
    """

    def __init__(self, app: ASGIApp, rules: EdgeRules) -> None:
        self._app = app
        self._rules = rules
        self._room = Room(rules.limits.max_bodies_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._identify(scope)
            scope.setdefault("state", {})["caller"] = caller
            if scope["method"] not in _BODILESS:
                caller.rates.take_request()
            checked = await self._check_body(scope, receive)
        except ApiError as error:
            await JSONResponse(error.body(), error.status, error.headers)(scope, receive, send)
            return
        if checked is not None:
            rates = [(name.encode(), text.encode()) for name, text in caller.rates.headers().items()]
            await self._app(scope, checked, with_headers(send, rates) if rates else send)

    def _identify(self, scope: Scope) -> Caller:
        headers = scope["headers"]
        self._check_headers(scope)
        self._check_names(headers)
        if scope["path"] in self._rules.open_paths:
            return Caller()
        return self._rules.gate(presented_token(headers))

    def _check_headers(self, scope: Scope) -> None:
        limits, headers = self._rules.limits, scope["headers"]
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        size += sum(len(name) + len(text) for name, text in headers)
        if size > limits.max_header_bytes or len(headers) > limits.max_headers:
            message = f"the request has {len(headers)} headers of {size} bytes: send fewer, or shorter ones"
            raise ApiError(431, message, code="headers_too_large", headers={"connection": "close"})

    def _check_names(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Against pages in a browser of the server's machine: neither another origin, nor a name bound to loopback."""
        named = dict(headers)
        host = named.get(b"host", b"").decode("latin-1").lower()
        if (hosts := self._rules.hosts()) and _without_port(host) not in hosts:
            raise ApiError(400, f"Host {host[:100]!r} is not this server's: see allowed_hosts", code="wrong_host")
        origin = named.get(b"origin", b"").decode("latin-1").lower()
        if origin and origin not in self._rules.origins and origin.partition("://")[2] != host:
            raise ApiError(403, f"pages of {origin[:100]!r} may not call: see allowed_origins", code="wrong_origin")

    async def _check_body(self, scope: Scope, receive: Receive) -> Receive | None:
        """A `receive` whose body is known to be sound, or is checked as it comes; None if the client has gone."""
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if declared == b"0" and b"transfer-encoding" not in headers:
            return receive
        limits, upload = self._rules.limits, scope["path"] in UPLOAD_PATHS
        bound = limits.max_upload_bytes if upload else limits.max_body_bytes
        body = Body(receive, bound, limits, self._room)
        if int(declared) > bound:
            if headers.get(b"expect", b"").lower() != b"100-continue":
                await body.discard()
            raise too_long(bound)
        check_kind(_text(headers, b"content-type"), _text(headers, b"content-encoding"), upload)
        if upload:
            return body.next
        whole = await body.whole()
        if whole is None:
            return None
        check_json(whole, limits.max_json_depth)
        return _replay(whole, receive)


class SecurityHeaders:
    """Middleware: headers that every answer carries, whoever gave it.

    Args:
        app: what is behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self._app(scope, receive, with_headers(send, _SECURITY_HEADERS))


def with_headers(send: Send, extra: Iterable[tuple[bytes, bytes]]) -> Send:
    """A `send` that adds headers to an answer that has not set them itself."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message = {**message, "headers": [*given, *(pair for pair in extra if pair[0] not in names)]}
        await send(message)

    return adding


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once and then whatever comes, which is the client's leaving."""
    parts = [body]

    async def again() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        return await receive()

    return again


def _text(headers: dict[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").lower()


def _without_port(host: str) -> str:
    name, bracket, port = host.rpartition("]")
    if bracket:
        return name.removeprefix("[") if not port or port.startswith(":") else host
    return host.partition(":")[0]


LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def public_rules(server: Server) -> EdgeRules:
    """What the server's own port lets through."""
    config = server.config
    on_loopback = config.uds is None and is_loopback(config.host)

    def hosts() -> frozenset[str]:
        if config.allowed_hosts:
            return frozenset(host.lower() for host in config.allowed_hosts)
        return LOOPBACK_NAMES if on_loopback and not server.keys.needed else frozenset()

    origins = frozenset(origin.lower() for origin in config.allowed_origins)
    return EdgeRules(server.keys.identify, config.limits, hosts, origins)


def cors_options(config: ServerConfig) -> dict[str, Any]:
    """For pages of the origins that may call: what they may send and read. Cookies mean nothing here."""
    return {
        "allow_origins": list(config.allowed_origins),
        "allow_methods": ["GET", "POST", "DELETE"],
        "allow_headers": ["authorization", "content-type", "x-api-key", "x-request-id", "x-request-timeout-ms"],
        "expose_headers": ["x-request-id", "retry-after", *RATE_HEADERS],
    }
