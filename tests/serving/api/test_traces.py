"""``/v1/traces``: what was stored of a run is read back by its owner, also of one that never ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from httpx2 import Response
from openai import AsyncOpenAI

from ramify.serving.storage.traces import Traces
from ramify.strategies.kernel.trace import Grown, Started, encode_event
from ramify.strategies.kernel.trace_file import read_trace
from tests.serving.api.tenants import KEYS, tenants

EVENTS = [Started("p", "best-of-n", 0), Grown(1, 0, "text", 3), Grown(2, 0, "other", 2)]


@dataclass(frozen=True)
class Served:
    """The storage's traces, the name of their owner, and two tenants' clients."""

    traces: Traces
    owner: str
    ada: AsyncOpenAI
    bob: AsyncOpenAI

    async def get(self, path: str, client: AsyncOpenAI | None = None, method: str = "GET") -> Response:
        """What a tenant (Ada) is answered."""
        client = client or self.ada
        headers = {"authorization": f"Bearer {client.api_key}"}
        return await client._client.request(method, f"http://127.0.0.1/v1/traces{path}", headers=headers)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with tenants() as both:
        owner = both.server.keys.identify(KEYS[0].encode()).owner
        yield Served(both.server.storage.traces, owner, both.ada, both.bob)


async def test_a_trace_is_listed_read_and_deleted(served: Served, tmp_path: Path) -> None:
    trace = await served.traces.create(served.owner, "nano", "best-of-n")
    for event in EVENTS:
        await served.traces.append(trace.id, encode_event(event))
    found = (await served.get(f"/{trace.id}")).json()
    assert (found["object"], found["status"], found["strategy"]) == ("trace", "in_progress", "best-of-n")
    await served.traces.finish(trace.id)
    listed = (await served.get("")).json()
    assert [(each["id"], each["status"]) for each in listed["data"]] == [(trace.id, "completed")]
    content = await served.get(f"/{trace.id}/content")
    assert content.headers["content-type"] == "application/jsonl"
    (tmp_path / "run.jsonl").write_bytes(content.content)
    assert read_trace(tmp_path / "run.jsonl").events == EVENTS
    deleted = await served.get(f"/{trace.id}", method="DELETE")
    assert deleted.json() == {"id": trace.id, "object": "trace", "deleted": True}
    assert (await served.get(f"/{trace.id}")).status_code == 404


async def test_an_owner_sees_no_other_owners_traces(served: Served) -> None:
    trace = await served.traces.create(served.owner, "nano", "best-of-n")
    for path in (f"/{trace.id}", f"/{trace.id}/content"):
        assert (await served.get(path, served.bob)).status_code == 404
    assert (await served.get(f"/{trace.id}", served.bob, "DELETE")).status_code == 404
    assert (await served.get("", served.bob)).json()["data"] == []
    assert (await served.get(f"?after={trace.id}", served.bob)).status_code == 400
    assert (await served.get("?limit=1000")).status_code == 400
    assert (await served.get(f"/{trace.id}")).status_code == 200


async def test_pages_of_traces_go_on_behind_the_last(served: Served) -> None:
    made = [(await served.traces.create(served.owner, "nano", "x")).id for _ in range(3)]
    first = (await served.get("?limit=2&order=asc")).json()
    assert (first["has_more"], first["last_id"]) == (True, made[1])
    second = (await served.get(f"?limit=2&order=asc&after={first['last_id']}")).json()
    assert [each["id"] for each in second["data"]] == made[2:]
