"""`ramify serve` from its start to its end: a process of its own, its ports, its signals."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest

from ramify.errors import ConfigError
from ramify.serving.config import ServerConfig
from ramify.serving.draining import Draining
from ramify.serving.launch import EXIT_CUT_OFF, Ports, Stop, _drain
from tests.serving.edge_server import bearer
from tests.serving.test_tls import make_certificate
from tests.warm_python import Program

KEY = "a-key-from-a-variable"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates for tests are made by openssl")
def test_a_server_starts_serves_over_tls_and_drains(tmp_path: Path, warm_python: str) -> None:
    certfile, keyfile = make_certificate(tmp_path, "served")
    options = ["--port", "0", "--admin-port", "0", "--ssl-certfile", certfile, "--ssl-keyfile", keyfile]
    command = ["ramify", "serve", "nano", *options, "--num-threads", "1"]
    environ = {**os.environ, "RAMIFY_API_KEY": KEY, "RAMIFY_STORAGE_URL": str(tmp_path / "server.db")}
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = Program(warm_python, command, environ, [0, 1, stream.fileno()])
    try:
        while not (ready := re.search(r"serves nano at (https://\S+); ready after .*models", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        url = ready[1]
        with httpx.Client(base_url=url, verify=False, headers=bearer(KEY), timeout=60) as client:
            assert client.get("/ready").status_code == 200
            assert client.get("/v1/models", headers=bearer("another")).status_code == 401
            wanted = {"model": "nano", "prompt": "1", "max_tokens": 120, "ignore_eos": True, "stream": True}
            with client.stream("POST", "/v1/completions", json=wanted) as answer:
                lines = answer.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                while httpx.get(f"{url}/ready", verify=False).status_code == 200:
                    time.sleep(0.02)
                turned_away = httpx.get(f"{url}/v1/models", headers=bearer(KEY), verify=False)
                assert turned_away.status_code == 503
                assert int(turned_away.headers["retry-after"]) >= 1
                rest = list(lines)
        assert rest[-2:] == ["data: [DONE]", ""] or rest[-1] == "data: [DONE]"
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    said = log.read_text()
    assert "a key is needed for everything but" in said
    assert "admin API at https://127.0.0.1:" in said
    assert KEY not in said
    assert "Traceback" not in said


async def test_a_drain_ends_when_the_last_request_does() -> None:
    draining, stop = Draining(30.0), Stop()
    stop.signalled(signal.SIGTERM)
    with draining.request():
        ending = asyncio.create_task(_drain(_server(draining), stop))
        await asyncio.sleep(0.01)
        assert not ending.done()
    await ending
    assert stop.code == 0


async def test_a_drain_that_takes_too_long_cuts_off_and_says_so() -> None:
    draining, stop = Draining(0.02), Stop()
    with draining.request():
        await _drain(_server(draining), stop)
    assert stop.code == EXIT_CUT_OFF


async def test_a_second_signal_ends_the_drain_at_once() -> None:
    draining, stop = Draining(3600.0), Stop()
    stop.signalled(signal.SIGINT)
    with draining.request():
        ending = asyncio.create_task(_drain(_server(draining), stop))
        await asyncio.sleep(0.01)
        stop.signalled(signal.SIGINT)
        await ending
    assert stop.code == 128 + signal.SIGINT


def _server(draining: Draining) -> Any:
    return SimpleNamespace(draining=draining, config=ServerConfig({"nano": "nano"}))


def test_a_port_that_is_taken_is_known_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            Ports(ServerConfig({"nano": "nano"}, port=port))
        with pytest.raises(ConfigError, match=f"port {port}"):
            Ports(ServerConfig({"nano": "nano"}, port=0, admin_port=port))


def test_a_unix_socket_of_a_dead_server_is_replaced_and_of_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    config = ServerConfig({"nano": "nano"}, uds=str(path))
    Ports(config).close()
    assert path.exists()
    ports = Ports(config)
    assert path.stat().st_mode & 0o007 == 0
    ports.close()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(ConfigError, match="cannot be taken"):
            Ports(config)
    path.unlink()
    path.write_text("a file of somebody's")
    with pytest.raises(ConfigError, match="cannot be taken"):
        Ports(config)
    assert path.read_text() == "a file of somebody's"
