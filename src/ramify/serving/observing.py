"""`Observing`: the outermost layer of the application, which sees every request begin and end.

It gives a request its id, its record and its span, reads the client's deadline, turns requests away while the server
ends, and when an answer is out writes the log's line and counts. A fault that nobody handled gets its error body here.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ramify.serving.errors import ApiError, as_api_error, error_response
from ramify.serving.http_protocol import BEGAN
from ramify.serving.logs import request_id
from ramify.serving.records import RequestRecord, recording
from ramify.serving.server import Server

PROBES = frozenset(("/health", "/ping", "/ready", "/version", "/load", "/metrics"))
"""Answered while the server ends, neither logged nor traced: they are asked every few seconds."""
TIMEOUT_HEADER = "x-request-timeout-ms"
CLIENT_CLOSED = 499
_UNMATCHED = "unmatched"


class Observing:
    """ASGI middleware.

    Args:
        app: the rest of the application.
        server: whose requests they are.
        paths: of all routes, as declared.
    """

    def __init__(self, app: ASGIApp, server: Server, paths: Collection[str] = ()) -> None:
        self._app = app
        self._server = server
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        began_s = scope.get("state", {}).get(BEGAN, time.perf_counter())
        began_unix_s = time.time() - (time.perf_counter() - began_s)
        record = RequestRecord(
            request_id(headers.get("x-request-id")), scope["method"], _UNMATCHED, began_s, began_unix_s
        )
        answer = _Answer(send, record, self._paths)
        metrics, probe = self._server.metrics, scope["path"] in PROBES
        metrics.in_flight.inc()
        try:
            if probe:
                await self._answer(scope, receive, answer, headers)
            else:
                with recording(record), self._server.tracing.request(record, headers):
                    await self._answer(scope, receive, answer, headers)
                    answer.end(scope)
        finally:
            answer.end(scope)
            metrics.in_flight.dec()
            ended_s = time.perf_counter() if record.ended_s is None else record.ended_s
            metrics.http_ended(record.method, record.route, record.status, ended_s - record.arrived_s)
            if not probe:
                self._server.log.write(record)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer, headers: Mapping[str, str]) -> None:
        try:
            if scope["path"] in PROBES:
                await self._app(scope, receive, answer.send)
                return
            with self._server.draining.request():
                answer.record.timeout_s = asked_timeout_s(headers)
                await self._app(scope, receive, answer.send)
        except Exception as error:
            told = as_api_error(error)
            if answer.record.status:
                raise  # the answer has begun: all that is left is to break the connection
            await error_response(told)(scope, receive, answer.send)


class _Answer:
    """What goes out of one request: marked with its id, its status kept."""

    def __init__(self, send: Send, record: RequestRecord, declared: frozenset[str]) -> None:
        self.record = record
        self._send = send
        self._declared = declared

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.record.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self.record.request_id.encode())]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.record.ended_s = time.perf_counter()

    def end(self, scope: Scope) -> None:
        """Nothing more comes: complete the record. An answer that is not whole had nobody to go to."""
        self.record.route = _route(scope, self._declared)
        caller = scope.get("state", {}).get("caller")
        if caller is not None:
            self.record.caller = caller.name
        if self.record.ended_s is None:
            self.record.status = CLIENT_CLOSED


def _route(scope: Scope, declared: frozenset[str]) -> str:
    """The path as declared; of a request that was turned away before it met a route, if it is one without variables."""
    if "route" in scope:
        return str(scope["route"].path)
    return scope["path"] if scope["path"] in declared else _UNMATCHED


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def asked_timeout_s(headers: Mapping[str, str]) -> float | None:
    """The client's patience, from its header.

    Raises:
        ApiError: 400, it is no positive number of milliseconds.
    """
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) > 0):
        message = f"{TIMEOUT_HEADER} must be a whole number of milliseconds above 0: it is {text[:20]!r}"
        raise ApiError(400, message, param=TIMEOUT_HEADER)
    return int(text) / 1000
