"""Stored responses: by owner, in chains, and marked when nobody works on them any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ramify.errors import RequestError
from ramify.serving.errors import ApiError
from ramify.serving.responses.store import STALE_S, Record, ResponseStore
from ramify.serving.storage import Storage


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with Storage(":memory:") as made:
        yield made


def record(number: int, status: str = "completed", before: str | None = None) -> Record:
    text = {"type": "message", "role": "assistant", "status": "completed", "content": []}
    half = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{", "status": "incomplete"}
    response: dict[str, Any] = {
        "id": f"resp_{number}",
        "status": status,
        "previous_response_id": before,
        "output": [{**text, "id": f"msg_out{number}"}, half],
    }
    return Record(response, [{**text, "role": "user", "id": f"msg_in{number}"}])


async def test_a_conversation_is_its_chain_without_half_calls(storage: Storage) -> None:
    store = ResponseStore(storage, shared=False)
    await store.put("me", record(1))
    await store.put("me", record(2, before="resp_1"))
    items = await store.conversation("me", "resp_2")
    assert [item["id"] for item in items] == ["msg_in1", "msg_out1", "msg_in2", "msg_out2"]
    with pytest.raises(ApiError, match="resp_2"):
        await store.conversation("you", "resp_2")
    await store.delete("me", "resp_1")
    with pytest.raises(ApiError, match="resp_1"):
        await store.conversation("me", "resp_2")


async def test_a_response_that_runs_cannot_be_gone_on_from(storage: Storage) -> None:
    store = ResponseStore(storage, shared=True)
    other = ResponseStore(storage, shared=True)
    await other.put("me", record(1, "in_progress"))
    with pytest.raises(RequestError, match="has not ended"):
        await store.conversation("me", "resp_1")


async def test_a_response_of_a_server_that_died_is_marked_failed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = ResponseStore(storage, shared=False)
    await dead.put("me", record(1, "in_progress"))
    await dead.put("me", record(2, "queued"))
    alone, sharing = ResponseStore(storage, shared=False), ResponseStore(storage, shared=True)
    assert (await sharing.get("me", "resp_1")).response["status"] == "in_progress"
    found = await alone.get("me", "resp_1")
    assert found.response["status"] == "failed"
    assert "create it again" in found.response["error"]["message"]
    later = record(2).alive_at + STALE_S + 4e9
    monkeypatch.setattr("ramify.serving.responses.store.time.time", lambda: later)
    assert (await sharing.get("me", "resp_2")).response["status"] == "failed"
