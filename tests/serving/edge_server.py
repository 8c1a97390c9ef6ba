"""A server behind its real ports, on a thread: what `ramify serve` runs, without its signals. And raw connections."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2 as httpx
from starlette.types import ASGIApp

from ramify.serving.config import ServerConfig
from ramify.serving.launch import Ports
from ramify.serving.limits import Limits
from ramify.serving.server import Server
from ramify.serving.web import WebServer, address_of, listening_socket, web_server

T = TypeVar("T")
QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens.

    Attributes:
        url, admin_url: of its ports.
        server: its parts, which live on `loop`.
    """

    url: str
    admin_url: str
    server: Server
    loop: asyncio.AbstractEventLoop

    def ask(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run something where the server lives."""

        async def run() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)

    def raw(self) -> socket.socket:
        """A connection for what no client library would send."""
        return raw(self.url)


@contextmanager
def running(config: ServerConfig) -> Iterator[Running]:
    """Serve on a thread of its own; it stores in memory unless told otherwise."""
    config = config if config.storage_url else replace(config, storage_url=":memory:")
    made: list[Running] = []
    errors: list[BaseException] = []
    ready = threading.Event()
    stop: list[asyncio.Event] = []

    async def serve() -> None:
        stop.append(asyncio.Event())
        server, ports = Server(config), Ports(config)
        try:
            await server.start()
            async with ports.open(server):
                made.append(Running(ports.urls[0], ports.urls[-1], server, asyncio.get_running_loop()))
                ready.set()
                await stop[0].wait()
                await ports.end(cut_off=True)
        finally:
            await server.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            errors.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="server under test")
    thread.start()
    ready.wait()
    try:
        if errors:
            raise errors[0]
        yield made[0]
    finally:
        if made:
            made[0].loop.call_soon_threadsafe(stop[0].set)
        thread.join()
    if errors:
        raise errors[0]


def raw(url: str, timeout_s: float = 20.0) -> socket.socket:
    """A TCP connection to a server."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=timeout_s)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send, and read until the server ends the connection or a whole answer with a length is there."""
    connection.sendall(data)
    return read_answer(connection)


def read_answer(connection: socket.socket) -> bytes:
    """Everything up to the end of an answer that has a length, or of the connection."""
    got = b""
    while True:
        head, found, body = got.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if found and lengths and len(body) >= int(lengths[0].partition(b":")[2]):
            return got
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            return got
        if not more:
            return got
        got += more


def status_of(answer: bytes) -> int:
    """The status of a raw answer; 0 if there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def post(url: str, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """POST JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(url, content=content, headers={"content-type": "application/json", **(headers or {})}, timeout=60)


def bearer(key: str) -> dict[str, str]:
    """The header of a key."""
    return {"authorization": f"Bearer {key}"}


def is_error(response: httpx.Response) -> bool:
    """Whether a body is OpenAI's error object, with a message and without anything of the server's inside."""
    error = response.json()["error"]
    inside = ("Traceback", "/ramify/", ".py", "site-packages", "0x")
    return (
        bool(error["message"])
        and set(error) == {"message", "type", "param", "code"}
        and not any(each in response.text for each in inside)
    )


@contextmanager
def listening(app: ASGIApp, limits: Limits) -> Iterator[str]:
    """An application without a server of ours behind it, on a port with our protocol."""
    ready = threading.Event()
    made: list[tuple[WebServer, str]] = []

    async def serve() -> None:
        bound = listening_socket("127.0.0.1", 0)
        web = web_server(app, limits)
        task = asyncio.create_task(web.serve([bound]))
        while not web.started:
            await asyncio.sleep(0.005)
        made.append((web, address_of(bound, tls=False)))
        ready.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="port under test")
    thread.start()
    ready.wait()
    web, url = made[0]
    try:
        yield url
    finally:
        web.config.timeout_graceful_shutdown = 1
        web.should_exit = True
        thread.join()
