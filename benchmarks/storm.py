"""A server under crowds that behave badly: does anything of them stay?

    python -m benchmarks.storm [--clients 1000]

Starts `ramify serve nano` and sends waves: clients that stream and vanish, clients that never finish their headers,
bodies that are broken, deep or too long. After each wave everything has to be as before it: no request runs, no block
of the KV pool is held, no file is open more, and a seeded request gives the same tokens. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2 as httpx
import psutil

QUESTION = "Use the numbers 3, 7 and 4 to make 25. Use every number exactly once."
STREAM = {
    "model": "nano", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 400, "ignore_eos": True,
    "stream": True,
}  # fmt: skip
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with which a close is a reset."""
SETTLE_S = 120.0
FILES_TO_SPARE = 8


@dataclass(frozen=True, slots=True)
class Target:
    """A server under test."""

    url: str
    admin_url: str
    pid: int

    def connect(self) -> socket.socket:
        """A connection to it."""
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port), timeout=60)

    def settled(self) -> bool:
        """Whether nothing runs and no block is held."""
        stats = httpx.get(f"{self.admin_url}/stats", timeout=60).json()
        engine = stats["engines"]["nano"]
        return stats["requests_running"] == 0 and not any(
            engine[name] for name in ("running", "waiting", "parked", "blocks_used")
        )

    def open_files(self) -> int:
        """Of its processes together."""
        server = psutil.Process(self.pid)
        return sum(each.num_fds() for each in (server, *server.children(recursive=True)))

    def megabytes(self) -> float:
        """Memory of its HTTP process."""
        return float(psutil.Process(self.pid).memory_info().rss / 2**20)

    def answer(self) -> str:
        """Of a seeded request."""
        body = {"model": "nano", "messages": STREAM["messages"], "seed": 1, "max_tokens": 60}
        response = httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=120)
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"])


def request(path: str, body: bytes, length: int | None = None) -> bytes:
    """A POST as bytes."""
    size = len(body) if length is None else length
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode() + body


def vanish(target: Target, clients: int) -> None:
    """All stream at once; some read a little, half of them end by a reset."""
    data = request("/v1/chat/completions", json.dumps(STREAM).encode())
    crowd = [target.connect() for _ in range(clients)]
    for each in crowd:
        each.sendall(data)
    for place, each in enumerate(crowd):
        if place % 10 == 0:
            each.recv(64)
        if place % 2:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        each.close()


def half_headers(target: Target, clients: int) -> None:
    """All begin a request and say no more, then go."""
    crowd = [target.connect() for _ in range(clients)]
    for each in crowd:
        each.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX: ")
    for each in crowd:
        each.close()


def half_bodies(target: Target, clients: int) -> None:
    """All promise a body and vanish within it."""
    crowd = [target.connect() for _ in range(clients)]
    for each in crowd:
        each.sendall(request("/v1/chat/completions", b'{"model": "nano"', 10_000))
    for each in crowd:
        each.close()


def bad_bodies(target: Target, clients: int) -> None:
    """Broken, deep, too long and random bodies; each is answered by an error of its own."""
    draw = random.Random(1)
    bodies = [b"{", b"[" * 10_000, b'{"a":' * 10_000, b"\xff" * 100, b"null", b" " * 100_000, b'{"n":1e999}']
    with httpx.Client(base_url=target.url, headers={"content-type": "application/json"}, timeout=120) as client:
        for _ in range(clients):
            body = draw.choice([*bodies, draw.randbytes(200)])
            status = client.post("/v1/chat/completions", content=body).status_code
            if status not in (400, 413):
                raise AssertionError(f"{body[:50]!r} was answered by {status}")


WAVES: tuple[Callable[[Target, int], None], ...] = (vanish, half_headers, half_bodies, bad_bodies, vanish)


def main() -> int:
    """Run all waves; says what was found after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    clients = parser.parse_args().clients
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * clients + 512), hard))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = start(Path(folder), log)
        try:
            return 0 if all(survives(target_of(process, log), wave, clients) for wave in WAVES) else 1
        finally:
            process.terminate()
            print(f"the server ended with {process.wait(60)}")


def survives(target: Target, wave: Callable[[Target, int], None], clients: int) -> bool:
    """One wave, and whether anything of it stayed."""
    files, answer = target.open_files(), target.answer()
    began_s = time.monotonic()
    wave(target, clients)
    sent_s = time.monotonic()
    while not (target.settled() and target.open_files() <= files + FILES_TO_SPARE):
        if time.monotonic() - sent_s > SETTLE_S:
            print(f"{wave.__name__}: something stayed: {target.open_files()} files open, {files} before")
            return False
        time.sleep(0.05)
    settled_s = time.monotonic()
    same = target.answer() == answer
    gone = f"{clients} clients in {sent_s - began_s:.1f} s, all gone after {settled_s - sent_s:.1f} s more"
    answer = "the same" if same else "ANOTHER"
    print(f"{wave.__name__:12} {gone}; the next answer is {answer}; {target.megabytes():.0f} MiB", flush=True)
    return same


def start(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """A server on free ports."""
    program = "from ramify.cli.main import app; app()"
    options = ["--port", "0", "--admin-port", "0", "--storage-url", str(folder / "server.db"), "--log-level", "info"]
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", program, "serve", "nano", *options], stderr=stream, env=os.environ
        )


def target_of(process: subprocess.Popen[bytes], log: Path) -> Target:
    """Where it listens, once it does."""
    while not (found := re.search(r"at (http://\S+); ready.*admin API at (http://[^,]+)", log.read_text(), re.DOTALL)):
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        time.sleep(0.1)
    return Target(found[1], found[2], process.pid)


if __name__ == "__main__":
    sys.exit(main())
