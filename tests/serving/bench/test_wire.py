"""Connections of a run, against servers that do with them what servers do: end them, keep them, turn them away."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ramify.serving.bench import connection
from ramify.serving.bench.address import Address
from ramify.serving.bench.client import Target
from ramify.serving.bench.drive import drive
from ramify.serving.bench.plan import Session, Turn
from tests.serving.test_tls import make_certificate

EVENTS = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'
TARGET = Target("m")


@dataclass
class Plain:
    """A server of threads and sockets, which answers each request of a connection as told.

    Attributes:
        answer: of the number of the request on its connection: the answer's bytes; None closes without any.
        answered: after so many requests a connection is closed without a word.
        tls: its certificate.
    """

    answer: Callable[[int], bytes | None]
    answered: int = 1000
    tls: ssl.SSLContext | None = None
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
            thread = threading.Thread(target=self._accept, args=(listening,), daemon=True)
            thread.start()
            yield f"{'http' if self.tls is None else 'https'}://localhost:{listening.getsockname()[1]}"
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                accepted = listening.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        if self.tls is not None:
            try:
                accepted = self.tls.wrap_socket(accepted, server_side=True)
            except OSError:
                accepted.close()  # the client does not trust it
                return
        with accepted, accepted.makefile("rb") as lines:
            for number in range(self.answered):
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = lines.readline()
                    if not line:
                        return
                    head += line
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                self.requests.append(head + lines.read(length))
                answer = self.answer(number)
                if answer is None:
                    return
                accepted.sendall(answer)


def good(_: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(EVENTS) + EVENTS


def one_after_another(count: int, pause_s: float = 0.0) -> list[Session]:
    """A session whose turns follow each other at once, or after a pause."""
    return [Session(0.0, tuple(Turn(f"say {i}", 1, pause_s if i else 0.0) for i in range(count)))]


def test_a_connection_is_used_for_one_request_after_another() -> None:
    server = Plain(good)
    with server.running() as url:
        load = drive(Address.of(url), TARGET, one_after_another(8), watched=False)
    assert all(request.ok for request in load.requests), load.requests
    assert server.connections == 1
    said = [len(json.loads(request.partition(b"\r\n\r\n")[2])["messages"]) for request in server.requests]
    assert said == [1, 3, 5, 7, 9, 11, 13, 15]


def test_connections_are_there_before_requests_are_due_as_many_as_are_due_together() -> None:
    gate = threading.Barrier(12)

    def together(_: int) -> bytes:
        gate.wait(20)
        return good(0)

    server = Plain(together)
    with server.running() as url:
        load = drive(Address.of(url), TARGET, [Session(0.0, (Turn("say", 1),))] * 12, watched=False)
    assert all(request.ok for request in load.requests), load.requests
    assert server.connections == 12


def test_a_server_that_ends_every_connection_gets_a_new_one_for_each_request() -> None:
    closing = good(0).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    server = Plain(lambda _: closing, answered=1)
    with server.running() as url:
        load = drive(Address.of(url), TARGET, one_after_another(5), watched=False)
    assert [request.error for request in load.requests] == [None] * 5
    assert server.connections >= 5


def test_an_idle_connection_that_the_server_has_ended_costs_no_request() -> None:
    server = Plain(good, answered=1)
    with server.running() as url:
        load = drive(Address.of(url), TARGET, one_after_another(4, pause_s=0.1), watched=False)
    assert [request.error for request in load.requests] == [None] * 4


def test_a_request_that_meets_the_end_of_a_long_idle_connection_is_sent_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_FOR_LONG_S", 0.0)
    server = Plain(lambda number: good(0) if number == 0 else None)  # the second finds the connection's end
    with server.running() as url:
        load = drive(Address.of(url), TARGET, one_after_another(2), watched=False)
    assert [request.error for request in load.requests] == [None] * 2
    assert len(server.requests) == 3


def test_a_server_that_drops_requests_is_not_asked_again() -> None:
    server = Plain(lambda _: None)
    with server.running() as url:
        [request] = drive(Address.of(url), TARGET, one_after_another(1), watched=False).requests
    assert "closed the connection before the answer was whole" in str(request.error)
    assert len(server.requests) == 1


def test_a_server_that_never_answers_ends_in_an_error_in_time() -> None:
    silent = threading.Event()

    def nothing(_: int) -> bytes | None:
        silent.wait(20)
        return None

    server = Plain(nothing)
    with server.running() as url:
        [request] = drive(Address.of(url, timeout_s=0.2), TARGET, one_after_another(1), watched=False).requests
        silent.set()
    assert request.error == "no whole answer within 0.2 s"


def test_where_nobody_listens_every_request_has_failed_at_its_time() -> None:
    load = drive(Address.of("http://127.0.0.1:9"), TARGET, [Session(0.02 * i, (Turn("say", 1),)) for i in range(5)])
    assert ["no connection to http://127.0.0.1:9" in str(request.error) for request in load.requests] == [True] * 5
    assert load.moments == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates for tests are made by openssl")
def test_https_works_and_a_certificate_that_is_not_to_be_trusted_is_an_error(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "served")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    large = b"data: " + json.dumps({"choices": [{"delta": {"content": "x" * 100_000}}]}).encode() + b"\n\n" + EVENTS
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(large) + large
    with Plain(lambda _: answer, tls=context).running() as url:
        address = Address.of(url)
        trusting = replace(address, tls=ssl.create_default_context(cafile=certificate))
        load = drive(trusting, TARGET, one_after_another(3), watched=False)
        assert [len(request.text) for request in load.requests] == [100_002] * 3, load.requests[0].error
    with Plain(good, tls=context).running() as url:
        insecure = replace(Address.of(url), tls=ssl.create_default_context())
        [request] = drive(insecure, TARGET, one_after_another(1), watched=False).requests
        assert "no connection" in str(request.error)


def test_stamps_are_the_systems_where_it_makes_them_and_never_later_than_the_reading() -> None:
    server = Plain(good)
    with server.running() as url:
        before_s = time.perf_counter()
        load = drive(Address.of(url), TARGET, one_after_another(3), watched=False)
        after_s = time.perf_counter()
    for request in load.requests:
        assert request.sent_s is not None
        assert request.ended_s is not None
        assert before_s <= request.intended_s <= request.sent_s <= request.ended_s <= after_s
