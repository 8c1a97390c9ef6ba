"""Health, readiness, load and the scrape."""

from __future__ import annotations

import httpx2
import pytest

from ramify.serving.app import create_app
from ramify.serving.config import ServerConfig
from ramify.serving.server import Server


def test_a_server_that_is_well_says_so(url: str) -> None:
    for path in ("/health", "/ping", "/ready"):
        answer = httpx2.get(f"{url}{path}")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "models": {"nano": "ready"}})
    assert httpx2.get(f"{url}/version").json().keys() == {"version"}
    load = httpx2.get(f"{url}/load").json()
    assert load["models"]["nano"].keys() == {"running", "waiting", "kv_cache_usage"}


def test_a_scrape_is_in_the_form_that_was_asked_for(url: str) -> None:
    plain = httpx2.get(f"{url}/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert "\nvllm:num_requests_running{" in plain.text
    open_metrics = httpx2.get(f"{url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


async def test_who_has_no_key_learns_whether_the_server_lives_and_nothing_else() -> None:
    server = Server(ServerConfig({"secret-model": "nano"}, storage_url=":memory:", api_key=("k" * 32,)))
    transport = httpx2.ASGITransport(create_app(server))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        health, ready = await http.get("/health"), await http.get("/ready")
        assert (health.status_code, health.json()) == (200, {"status": "ok"})
        assert (ready.status_code, ready.json()) == (503, {"status": "not ready"})
        for path in ("/metrics", "/load", "/version", "/v1/models"):
            refused = await http.get(path)
            assert refused.status_code == 401
            assert "secret-model" not in refused.text


@pytest.mark.parametrize(
    ("states", "health", "ready"),
    [
        ({"a": "ready", "b": "idle"}, 200, 200),
        ({"a": "ready", "b": "starting"}, 200, 200),
        ({"a": "starting"}, 200, 503),
        ({"a": "restarting", "b": "ready"}, 503, 503),
        ({"a": "failed", "b": "ready"}, 503, 503),
    ],
)
async def test_a_dead_engine_is_told_of_and_one_that_is_loaded_on_demand_is_no_fault(
    states: dict[str, str], health: int, ready: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(ServerConfig({"a": "nano"}, storage_url=":memory:"))
    monkeypatch.setattr(server.models, "states", lambda: states)
    transport = httpx2.ASGITransport(create_app(server))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert (await http.get("/health")).status_code == health
        assert (await http.get("/ready")).status_code == ready
        server.draining.begin()
        assert (await http.get("/ready")).status_code == 503
        assert (await http.get("/health")).status_code == health
