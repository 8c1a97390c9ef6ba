"""``/v1/traces``: what was stored of a run is read back by its owner, also of one that never ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from ramify.serving.api import traces
from ramify.serving.auth import Caller
from ramify.serving.config import ServerConfig
from ramify.serving.errors import install_error_handlers
from ramify.serving.server import Server
from ramify.strategies.kernel.trace import Grown, Started, encode_event
from ramify.strategies.kernel.trace_file import read_trace

EVENTS = [Started("p", "best-of-n", 0), Grown(1, 0, "text", 3), Grown(2, 0, "other", 2)]


@pytest.fixture
async def served() -> AsyncIterator[tuple[Server, httpx2.AsyncClient]]:
    """The routes on a storage, without an engine; the caller is who the header says."""
    server = Server(ServerConfig({"nano": "nano"}, storage_url=":memory:"))
    await server.storage.start()
    app = FastAPI()
    app.state.server = server
    install_error_handlers(app)
    app.include_router(traces.router)

    @app.middleware("http")
    async def identify(request, call_next):  # type: ignore[no-untyped-def]
        request.state.caller = Caller(owner=request.headers.get("x-owner", "ada"))
        return await call_next(request)

    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test/v1") as client:
        yield server, client
    await server.storage.close()


async def test_a_trace_is_listed_read_and_deleted(served: tuple[Server, httpx2.AsyncClient], tmp_path: Path) -> None:
    server, client = served
    trace = await server.storage.traces.create("ada", "nano", "best-of-n")
    for event in EVENTS:
        await server.storage.traces.append(trace.id, encode_event(event))
    found = (await client.get(f"/traces/{trace.id}")).json()
    assert (found["object"], found["status"], found["strategy"]) == ("trace", "in_progress", "best-of-n")
    await server.storage.traces.finish(trace.id)
    listed = (await client.get("/traces")).json()
    assert [each["id"] for each in listed["data"]] == [trace.id]
    assert listed["data"][0]["status"] == "completed"
    content = await client.get(f"/traces/{trace.id}/content")
    assert content.headers["content-type"] == "application/jsonl"
    (tmp_path / "run.jsonl").write_bytes(content.content)
    assert read_trace(tmp_path / "run.jsonl").events == EVENTS
    assert (await client.delete(f"/traces/{trace.id}")).json() == {"id": trace.id, "object": "trace", "deleted": True}
    assert (await client.get(f"/traces/{trace.id}")).status_code == 404


async def test_an_owner_sees_no_other_owners_traces(served: tuple[Server, httpx2.AsyncClient]) -> None:
    server, client = served
    trace = await server.storage.traces.create("ada", "nano", "best-of-n")
    bob = {"x-owner": "bob"}
    for path in (f"/traces/{trace.id}", f"/traces/{trace.id}/content"):
        assert (await client.get(path, headers=bob)).status_code == 404
    assert (await client.delete(f"/traces/{trace.id}", headers=bob)).status_code == 404
    assert (await client.get("/traces", headers=bob)).json()["data"] == []
    assert (await client.get("/traces?after=" + trace.id, headers=bob)).status_code == 400
    assert (await client.get("/traces?limit=1000")).status_code == 400


async def test_pages_of_traces_go_on_behind_the_last(served: tuple[Server, httpx2.AsyncClient]) -> None:
    server, client = served
    made = [(await server.storage.traces.create("ada", "nano", "x")).id for _ in range(3)]
    first = (await client.get("/traces?limit=2&order=asc")).json()
    assert (first["has_more"], first["last_id"]) == (True, made[1])
    second = (await client.get(f"/traces?limit=2&order=asc&after={first['last_id']}")).json()
    assert [each["id"] for each in second["data"]] == made[2:]
