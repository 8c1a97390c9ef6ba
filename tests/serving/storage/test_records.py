"""Responses, traces and keys."""

from __future__ import annotations

import pytest

from ramify.errors import QuotaError, RequestError, StorageError
from ramify.serving.storage import Storage
from tests.serving.storage.conftest import Clock


async def test_a_response_is_replaced_deleted_and_forgotten_in_time(storage: Storage, clock: Clock) -> None:
    first = await storage.responses.put("ada", "resp_1", b"one")
    await storage.responses.put("ada", "resp_1", b"other")
    found = await storage.responses.get("ada", "resp_1")
    assert found is not None
    assert (found.data, found.created_at, found.expires_at) == (b"other", first.created_at, clock.now + 100)
    assert await storage.stored_bytes("ada") == 5
    assert await storage.responses.get("bob", "resp_1") is None
    assert not await storage.responses.delete("bob", "resp_1")
    with pytest.raises(ValueError, match="another owner"):
        await storage.responses.put("bob", "resp_1", b"mine")
    assert await storage.responses.delete("ada", "resp_1")
    await storage.responses.put("ada", "resp_2", b"two")
    clock.now += 100
    assert await storage.responses.get("ada", "resp_2") is None
    assert await storage.sweep() == 1
    assert await storage.stored_bytes("ada") == 0


async def test_a_response_over_the_quota_leaves_the_one_before(storage: Storage) -> None:
    await storage.responses.put("ada", "resp_1", b"small")
    with pytest.raises(QuotaError):
        await storage.responses.put("ada", "resp_1", b"x" * 5_000_000)
    found = await storage.responses.get("ada", "resp_1")
    assert found is not None
    assert found.data == b"small"


async def test_a_trace_reads_as_far_as_it_was_written(storage: Storage, clock: Clock) -> None:
    trace = await storage.traces.create("ada", "nano", "beam-search")
    lines = [b'{"a":%d}\n' % number for number in range(70)]
    for line in lines:
        await storage.traces.append(trace.id, line)
    found = await storage.traces.get("ada", trace.id)
    assert found is not None
    assert found.finished_at is None
    await storage.traces.append(trace.id, b"later\n")
    assert b"".join([part async for part in storage.traces.read(found)]) == b"".join(lines)
    await storage.traces.finish(trace.id)
    assert (await storage.traces.list("ada")).items[0].finished_at == clock.now
    assert await storage.traces.get("bob", trace.id) is None
    assert not await storage.traces.delete("bob", trace.id)
    assert await storage.traces.delete("ada", trace.id)
    assert await storage.stored_bytes("ada") == 0
    with pytest.raises(StorageError, match="deleted"):
        await storage.traces.append(trace.id, b"too late\n")


async def test_traces_expire(storage: Storage, clock: Clock) -> None:
    await storage.traces.create("ada", "nano", "best-of-n")
    clock.now += 101
    assert not (await storage.traces.list("ada")).items
    assert await storage.sweep() == 1


async def test_a_key_is_found_by_its_digest_and_its_name_is_its_own(storage: Storage, clock: Clock) -> None:
    key = await storage.keys.add("ci", b"digest", "ada", {"models": ["nano"]}, expires_at=clock.now + 5)
    assert await storage.keys.by_digest(b"digest") == key
    assert await storage.keys.by_name("ci") == key
    assert await storage.keys.by_digest(b"other") is None
    with pytest.raises(RequestError, match="ci"):
        await storage.keys.add("ci", b"another", "bob")
    clock.now += 1
    assert await storage.keys.revoke("ci")
    assert not await storage.keys.revoke("ci")
    (listed,) = await storage.keys.list()
    assert listed.revoked_at == clock.now
    assert await storage.keys.delete("ci")
    assert await storage.keys.list() == []
