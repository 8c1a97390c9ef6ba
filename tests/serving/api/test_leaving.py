"""Clients that leave: what was made for them ends at once, whether they read a stream or wait for a whole answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

import httpx2
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

LONG: dict[str, Any] = {
    "model": "nano",
    "messages": [{"role": "user", "content": "Count."}],
    "ignore_eos": True,
    "n": 4,
}
PATIENCE_S = 20.0


def counted(url: str, name: str, **labels: str) -> float:
    """The value of a metric, over all its other labels."""
    families = text_string_to_metric_families(httpx2.get(f"{url}/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@contextmanager
def sent(url: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """A connection on which a chat request was sent."""
    place, raw = urlparse(url), msgspec.json.encode(body)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((place.hostname, place.port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        yield connection


def until(holds: Any) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_answers(url: str, stream: bool) -> None:
    ended = counted(url, "vllm:request_success_total", finished_reason="abort")
    with sent(url, {**LONG, "stream": stream}) as connection:
        until(lambda: counted(url, "vllm:num_requests_running") > 0)
        if stream:
            assert connection.recv(12) == b"HTTP/1.1 200"
    until(lambda: counted(url, "vllm:request_success_total", finished_reason="abort") == ended + 1)
    until(lambda: counted(url, "vllm:num_requests_running") == 0)
    assert counted(url, "vllm:kv_cache_usage_perc") == 0
