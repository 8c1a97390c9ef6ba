"""Answers as servers give them, in every form and cut anywhere: what is read of them is the same."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator

import pytest

from ramify.errors import ConfigError
from ramify.serving.bench.address import Address
from ramify.serving.bench.client import Measured, events_of, read_answer
from ramify.serving.bench.connection import Connection, Exchange

EVENTS = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"a\xc3\xa4"}}]}\n\n: ping\n\n'
    b'data: {"choices":[{"delta":{"content":"b"}}]}\n\ndata: {"choices":[{"delta":{"reasoning_content":"c"}}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":null}}\n\n'
    b"data: [DONE]\n\n"
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-Id: r-1\r\n"


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def sized(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


FORMS = {
    "an event a chunk": chunked(EVENTS, 64),
    "chunks that cut events": chunked(EVENTS, 7),
    "a body of known length": sized(EVENTS),
    "a body until the end": HEAD + b"Connection: close\r\n\r\n" + EVENTS,
    "lines that end in CRLF": sized(EVENTS.replace(b"\n", b"\r\n")),
    "lines that end in CR": sized(EVENTS.replace(b"\n", b"\r")),
    "no space after data": sized(EVENTS.replace(b"data: ", b"data:")),
    "no empty line at the end": sized(EVENTS.rstrip(b"\n")),
    "a head before the head": b"HTTP/1.1 100 Continue\r\n\r\n" + chunked(EVENTS, 64),
    "other names and versions": sized(EVENTS).replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 200 "),
}


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the server's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Connection(ours), theirs


def answered(pair: tuple[Connection, socket.socket], pieces: list[bytes], ends: bool = False) -> Exchange:
    """What is made of an answer that comes in pieces, after whose last the connection may be closed."""
    connection, server = pair
    exchange = Exchange(b"ask", lambda _: None)
    assert connection.send(exchange)
    assert server.recv(10) == b"ask"
    over = False
    for piece in pieces:
        server.sendall(piece)
        over = connection.receive()
    if ends:
        server.close()
        over = connection.receive()
    assert over
    return exchange


def read(exchange: Exchange) -> Measured:
    measured = Measured(0.0)
    list(read_answer(measured, exchange))
    return measured


def check(measured: Measured) -> None:
    assert measured.ok, measured.error
    assert (measured.text, len(measured.token_times_s)) == ("aäb", 3)
    assert (measured.prompt_tokens, measured.output_tokens, measured.cached_tokens) == (7, 3, 0)
    assert (measured.status, measured.request_id) == (200, "r-1")
    assert measured.token_times_s == sorted(measured.token_times_s)
    assert measured.sent_s is not None
    assert measured.ended_s is not None
    assert measured.sent_s <= measured.token_times_s[0] <= measured.ended_s


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 50, 10_000])
def test_an_answer_is_the_same_in_every_form_and_however_it_is_cut(
    form: str, size: int, pair: tuple[Connection, socket.socket]
) -> None:
    whole = FORMS[form]
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    check(read(answered(pair, pieces, ends="until" in form)))
    assert pair[0].reusable == ("until" not in form)


def test_a_connection_is_used_again_unless_the_server_says_that_it_ends(
    pair: tuple[Connection, socket.socket],
) -> None:
    for _ in range(3):
        check(read(answered(pair, [chunked(EVENTS, 64)])))
        pair[0].rest()
    last = sized(EVENTS).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    check(read(answered(pair, [last])))
    assert not pair[0].reusable


def test_the_time_of_an_event_is_that_of_its_last_byte() -> None:
    pieces = [
        (1.0, b"da"),
        (2.0, b"ta: x\n"),
        (3.0, b"\ndata: y\n\ndata: z\r"),
        (4.0, b"\n\r\n"),
        (5.0, b"data: w\n"),
        (6.0, b"data: "),
    ]
    assert [found for found in events_of(pieces) if found[1]] == [(3.0, b"x"), (3.0, b"y"), (4.0, b"z"), (6.0, b"w")]
    assert [data for _, data in events_of([(1.0, b"data: a\ndata: b\n\n")]) if data] == [b"a\nb"]


ERROR = b'{"error":{"message":"slow down"}}'


@pytest.mark.parametrize(
    ("answer", "ends", "reason"),
    [
        (HEAD.replace(b"200 OK", b"429 No") + b"Content-Length: %d\r\n\r\n" % len(ERROR) + ERROR, False, "HTTP 429: "),
        (HEAD.replace(b"200 OK", b"503 No") + b"Connection: close\r\n\r\nbusy", True, "HTTP 503: busy"),
        (HEAD.replace(b"200 OK", b"204 No") + b"\r\n", False, "HTTP 204: "),
        (chunked(EVENTS, 64)[:-40], True, "closed the connection before the answer was whole"),
        (sized(EVENTS)[:-40], True, "closed the connection before the answer was whole"),
        (HEAD, True, "closed the connection before the answer was whole"),
        (b"", True, "closed the connection before the answer was whole"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False, "the answer is no HTTP"),
        (sized(EVENTS[:80]), False, "the stream ended before its [DONE]"),
        (sized(b'data: {"error":{"message":"lost"}}\n\ndata: [DONE]\n\n'), False, "lost"),
        (sized(b'data: {"error":"lost"}\n\ndata: [DONE]\n\n'), False, "lost"),
        (sized(b"data: {no\n\ndata: [DONE]\n\n"), False, "an event cannot be read"),
        (sized(b'data: {"choices":[3]}\n\ndata: [DONE]\n\n'), False, "an event cannot be read"),
        (sized(b"data: [1]\n\ndata: [DONE]\n\n"), False, "an event cannot be read"),
        (sized(zlib.compress(EVENTS)), False, "the stream ended before its [DONE]"),
    ],
)
def test_what_goes_wrong_is_the_requests_error(
    answer: bytes, ends: bool, reason: str, pair: tuple[Connection, socket.socket]
) -> None:
    measured = read(answered(pair, [answer] if answer else [], ends))
    assert not measured.ok
    assert reason in str(measured.error)


def test_an_idle_connection_on_which_anything_comes_is_not_used_again(
    pair: tuple[Connection, socket.socket],
) -> None:
    pair[1].sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert pair[0].receive()
    assert not pair[0].reusable


def test_what_follows_an_answer_unasked_ends_its_connection_and_not_the_answer(
    pair: tuple[Connection, socket.socket],
) -> None:
    check(read(answered(pair, [sized(EVENTS) + b"garbage"])))
    assert not pair[0].reusable


def test_a_request_that_the_system_does_not_take_at_once_is_sent_in_parts(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, server = pair
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = bytes(range(256)) * 4000
    got = b""
    whole = connection.send(Exchange(data, lambda _: None))
    assert not whole
    while not whole or len(got) < len(data):
        got += server.recv(65536)
        whole = whole or connection.send_rest()
    assert got == data


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", 8000, "/v1/models"),
        ("http://127.0.0.1:8000/", "127.0.0.1:8000", 8000, "/v1/models"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000", 8000, "/v1/models"),
        ("http://example.test/team/a/v1/", "example.test", 80, "/team/a/v1/models"),
        ("http://name:word@[::1]:9", "[::1]:9", 9, "/v1/models"),
    ],
)
def test_a_base_url_says_where_and_with_which_prefix(url: str, host: str, port: int, path: str) -> None:
    address = Address.of(url, api_key="secret")
    assert (address.port, address.tls) == (port, None)
    head, _, body = address.request("/v1/models", b"{}").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == f"POST {path} HTTP/1.1"
    assert {f"Host: {host}", "Content-Length: 2", "Authorization: Bearer secret"} <= set(lines)
    assert body == b"{}"
    assert b"Authorization" not in Address.of(url).request("/metrics")
    assert "secret" not in repr(address)


def test_https_checks_certificates_and_has_its_own_port() -> None:
    address = Address.of("https://example.test")
    assert address.tls is not None
    assert address.tls.check_hostname
    assert (address.port, str(address)) == (443, "https://example.test")


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("127.0.0.1:8000", {}), ("ftp://a", {}), ("http://", {}), ("http://a:99999", {}), ("http://a:x", {}),
        ("http://a\n", {}), ("http://a/?q=1", {}),
        ("http://a", {"api_key": "a\r\nb"}), ("http://a", {"api_key": "ä"}), ("http://a", {"timeout_s": 0.0}),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_is_refused(url: str, more: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="does not work|no header can"):
        Address.of(url, **more)  # type: ignore[arg-type]
