"""HTTP at its edges: what no client library sends, and what a hostile one does, against a port as it is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from starlette.types import Receive, Scope, Send

from ramify.serving.auth import Caller
from ramify.serving.edge import Edge, EdgeRules, SecurityHeaders
from ramify.serving.http_protocol import BEGAN
from ramify.serving.limits import Limits
from tests.serving.edge_server import exchange, is_error, listening, post, raw, read_answer, status_of

LIMITS = Limits(
    max_connections=40, max_header_bytes=8192, max_headers=50, header_timeout_s=0.3, keep_alive_s=1,
    max_body_bytes=10_000, max_upload_bytes=50_000, body_timeout_s=0.3, max_bodies_bytes=20_000, stall_timeout_s=0.3,
)  # fmt: skip
ENDLESS = 2**26
REQUEST = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class Echo:
    """Answers with the body; what `/flood` writes is never read by anybody, `/busy` keeps all others waiting."""

    def __init__(self) -> None:
        self.flood_ended = threading.Event()
        self.served: list[str] = []
        self.began_s = 0.0
        self.busy, self.free = threading.Event(), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served.append(scope["path"])
        self.began_s = scope["state"][BEGAN]
        if scope["path"] == "/busy":
            self.busy.set()
            assert self.free.wait(20)  # and with it the whole loop
        if scope["path"] == "/flood":
            await self._flood(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _flood(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
        self.flood_ended.set()


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def port(echo: Echo) -> Iterator[str]:
    rules = EdgeRules(lambda token: Caller(), LIMITS)
    with listening(SecurityHeaders(Edge(echo, rules)), LIMITS) as url:
        yield url


def test_a_body_arrives_as_it_was_sent(port: str) -> None:
    assert post(f"{port}/echo", [1, {"a": "é"}]).json() == [1, {"a": "é"}]


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD
        + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nnull",
        HEAD + b"Content-Length: +4\r\n\r\nnull",
        HEAD + b"Content-Length: 4, 4\r\n\r\nnull",
        HEAD + b"Content-Length: 0x4\r\n\r\nnull",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nnull",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nZ\r\nnull\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nnull\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n4\r\nnull\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n4\r\nnull\r\n0\r\n\r\n",
        HEAD + b" folded: header\r\nContent-Length: 4\r\n\r\nnull",
        HEAD + b"Bad Name: x\r\nContent-Length: 4\r\n\r\nnull",
        HEAD + b"X: a\x00b\r\nContent-Length: 4\r\n\r\nnull",
        b"GET /smuggled HTTP/1.1\nHost: x\n\n\x00",
        b"GET /smuggled HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_request_smuggling_ambiguous_framing_is_refused_and_the_connection_ends(
    request_bytes: bytes, port: str, echo: Echo
) -> None:
    with raw(port) as connection:
        answer = exchange(connection, request_bytes)
        assert status_of(answer) in (400, 415), answer[:200]
        assert answer.count(b"HTTP/1.1 ") == 1
        assert read_answer(connection) == b""  # ended: what follows is nobody's request
    assert "/smuggled" not in echo.served


def test_header_size_is_bounded_also_when_the_headers_never_end(port: str) -> None:
    for request_bytes in (
        HEAD + b"X: " + b"a" * 20_000 + b"\r\nContent-Length: 4\r\n\r\nnull",
        HEAD + b"X: y\r\n" * 60 + b"Content-Length: 4\r\n\r\nnull",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        with raw(port) as connection:
            answer = exchange(connection, request_bytes)
        assert status_of(answer) == 431, answer[:200]
    with raw(port) as connection:
        connection.sendall(HEAD + b"X: ")
        sent = 0
        try:
            while sent < ENDLESS:
                sent += connection.send(b"a" * 65536)
        except OSError:
            pass  # the server ended the connection
        assert sent < ENDLESS


def test_requests_that_are_sent_ahead_are_all_answered_in_order(port: str) -> None:
    request = HEAD + b"Content-Length: 4\r\n\r\n"
    many = 1500
    got = b""
    with raw(port) as connection:
        sender = threading.Thread(
            target=connection.sendall, args=(b"".join(request + b"%04d" % number for number in range(many)),)
        )
        sender.start()
        while got.count(b"HTTP/1.1 200") < many or not got.endswith(b"%04d" % (many - 1)):
            more = connection.recv(2**20)
            assert more, got[-200:]
            got += more
        sender.join()
    assert [int(answer[-4:]) for answer in got.split(b"HTTP/1.1 200")[1:]] == list(range(many))


def test_a_request_began_when_its_bytes_came_however_late_they_are_read(port: str, echo: Echo) -> None:
    with raw(port) as first, raw(port) as second:
        assert status_of(exchange(second, REQUEST)) == 200
        for _ in range(3):
            echo.busy.clear()
            echo.free.clear()
            first.sendall(b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert echo.busy.wait(20)
            before_s = time.perf_counter()
            second.sendall(REQUEST)
            time.sleep(0.01)
            after_s = time.perf_counter()
            echo.free.set()
            assert status_of(exchange(first, b"")) == status_of(exchange(second, b"")) == 200
            assert before_s - 0.001 < echo.began_s < after_s


@pytest.mark.parametrize("beginning", [b"", b"GET /echo HTTP/1.1\r\nHo", HEAD + b"Content-Length: 1000\r\n\r\n["])
def test_slowloris_who_sends_too_slowly_is_cut_off(beginning: bytes, port: str) -> None:
    with raw(port) as connection:
        connection.sendall(beginning)
        answer = read_answer(connection)  # comes to an end, although nothing more is sent
    assert status_of(answer) == 408


def test_slowloris_a_body_that_nobody_waits_for_is_cut_off_too(port: str) -> None:
    with raw(port) as connection:
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 9000\r\n\r\n"
        assert status_of(exchange(connection, head + b"x")) == 415
        assert connection.recv(1) == b""


def test_slow_readers_are_cut_off(port: str, echo: Echo) -> None:
    with raw(port) as connection:
        connection.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        assert echo.flood_ended.wait(20)  # 200 MiB that are never read hold nobody up


def test_connections_beyond_the_bound_are_told_so(port: str) -> None:
    held = [raw(port) for _ in range(LIMITS.max_connections)]
    try:
        with raw(port) as connection:
            answer = read_answer(connection)
        assert status_of(answer) == 503
        assert b"retry-after: 1" in answer
    finally:
        for each in held:
            each.close()
    with raw(port) as connection:
        assert status_of(exchange(connection, b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")) in (200, 503)


def test_bodies_that_are_too_long_are_refused_declared_or_not(port: str) -> None:
    declared = post(f"{port}/echo", b"[" + b"1," * 10_000 + b"1]")
    assert declared.status_code == 413
    assert is_error(declared)

    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 1000

    headers = {"content-type": "application/json"}
    assert httpx.post(f"{port}/echo", content=chunks(), headers=headers).status_code == 413
    with raw(port) as connection:
        expects = HEAD + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        assert status_of(exchange(connection, expects)) == 413  # without asking for the body first


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": ""}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-encoding": "br"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-encoding": "identity"}, 200),
    ],
)
def test_bodies_are_json_as_it_stands(headers: dict[str, str], status: int, port: str) -> None:
    response = post(f"{port}/echo", b"{}", headers)
    assert response.status_code == status
    assert status == 200 or is_error(response)


def test_bodies_that_arrive_together_have_a_bound_too_and_give_their_room_back(port: str) -> None:
    crowd = [raw(port) for _ in range(4)]
    for each in crowd:
        each.sendall(HEAD + b"Content-Length: 9000\r\n\r\n" + b"[" + b" " * 6000)  # the fourth is one too many
    statuses = [status_of(read_answer(each)) for each in crowd]
    for each in crowd:
        each.close()
    assert sorted(statuses) == [408, 408, 408, 503]
    assert post(f"{port}/echo", b" " * 9000).status_code == 200


def test_uploads_have_a_bound_of_their_own_and_are_forms(port: str) -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert post(f"{port}/v1/files", b"x" * 20_000, form).status_code == 200
    assert post(f"{port}/v1/files", b"x" * 60_000, form).status_code == 413
    assert post(f"{port}/v1/files", b"{}").status_code == 415


def test_deep_json_is_a_400_and_the_connection_goes_on(port: str) -> None:
    with httpx.Client(headers={"content-type": "application/json"}) as client:
        for body in (b"[" * 4_000, b'{"a":' * 1_900, b"[" * 4_000 + b"]" * 4_000):
            response = client.post(f"{port}/echo", content=body)
            assert (response.status_code, is_error(response)) == (400, True)
        assert client.post(f"{port}/echo", content=b"[]").status_code == 200


def test_every_answer_has_the_security_headers(port: str) -> None:
    for response in (post(f"{port}/echo", b"{}"), post(f"{port}/echo", b"[" * 100)):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers
