"""Several servers on one database: each batch is worked on by one, and what a killed one held comes free."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from ramify.serving.batches.holder import holder_name, is_gone
from ramify.serving.storage import Storage
from ramify.serving.storage.batches import LEASE_S, LeaseLost
from ramify.serving.storage.records import LineResult, StoredBatch
from tests.serving.storage.conftest import Clock
from tests.serving.storage.helpers import never, put_batch


async def test_servers_that_look_at_once_take_different_batches(storage: Storage, url: str, clock: Clock) -> None:
    batches = [await put_batch(storage) for _ in range(6)]
    async with Storage(url, clock=clock) as other:
        servers = (storage, other, storage, other, storage, other, storage, other)
        claims = (each.batches.claim(f"h{place}", never) for place, each in enumerate(servers))
        taken = [batch.id for batch in await asyncio.gather(*claims) if batch is not None]
        while (late := await storage.batches.claim("late", never)) is not None:
            taken.append(late.id)
    assert sorted(taken) == sorted(batch.id for batch in batches)


async def test_a_lease_that_is_not_renewed_goes_to_another_server_and_the_first_changes_nothing(
    storage: Storage, clock: Clock
) -> None:
    await put_batch(storage)
    first = await storage.batches.claim("first", never)
    assert first is not None
    clock.now += LEASE_S - 1
    assert await storage.batches.claim("second", never) is None
    await storage.batches.renew(first, "first")
    clock.now += LEASE_S - 1
    assert await storage.batches.claim("second", never) is None
    clock.now += 1
    second = await storage.batches.claim("second", never)
    assert second is not None
    await storage.batches.add_results(second, "second", [LineResult(1, b"second\n")])
    with pytest.raises(LeaseLost):
        await storage.batches.add_results(first, "first", [LineResult(1, b"first\n"), LineResult(2, b"first\n")])
    assert [data async for _, data in storage.batches.results(second, failed=False)] == [b"second\n"]


async def test_a_batch_given_back_with_a_pause_rests_so_long(storage: Storage, clock: Clock) -> None:
    batch = await put_batch(storage)
    assert await storage.batches.claim("h", never) is not None
    await storage.batches.release(batch, "h", pause_s=5)
    assert await storage.batches.claim("h", never) is None
    clock.now += 5
    assert await storage.batches.claim("h", never) is not None


async def test_owners_with_work_may_be_left_to_wait(storage: Storage) -> None:
    await put_batch(storage, owner="ada")
    await put_batch(storage, owner="bob")
    taken: StoredBatch | None = await storage.batches.claim("h", never, {"ada"})
    assert taken is not None
    assert taken.request.owner == "bob"
    assert await storage.batches.claim("h", never, {"ada"}) is None


def test_a_process_knows_itself_and_the_dead() -> None:
    assert not is_gone(holder_name())
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as other:
        name = holder_name(other.pid)
        alive = is_gone(name)
        other.kill()
        while not is_gone(name):  # also as long as nobody has asked how it ended
            pass
        other.wait()
    assert (alive, is_gone(name)) == (False, True)


@pytest.mark.parametrize("name", ["", "server", "elsewhere/1/0.0/x", "a/b/c/d/e"])
def test_who_is_not_known_here_is_not_taken_for_dead(name: str) -> None:
    assert not is_gone(name)
