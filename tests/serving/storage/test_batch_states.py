"""Batches as a state machine: whatever servers and clients do in whatever order, the states follow the graph, the
counts are those of the stored results, and nobody without the lease changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ramify.errors import RequestError, StorageError
from ramify.serving.storage import Storage
from ramify.serving.storage.batches import LEASE_S, TRANSITIONS, LeaseLost
from ramify.serving.storage.records import LIVE, LineError, LineResult, StoredBatch, Usage
from tests.serving.storage.conftest import Clock
from tests.serving.storage.helpers import put_batch

T = TypeVar("T")
HOLDERS = st.sampled_from(["one", "two"])
NUMBERS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


class BatchMachine(RuleBasedStateMachine):
    """One batch, two servers, one client, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.storage = Storage(":memory:", clock=self.clock)
        self.run(self.storage.start())
        self.batch = self.run(put_batch(self.storage))
        self.results: dict[int, bool] = {}
        self.holder: str | None = None
        self.held_until = 0.0

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self.runner.run(wait())

    def teardown(self) -> None:
        self.run(self.storage.close())
        self.runner.close()

    def stored(self) -> StoredBatch:
        found = self.run(self.storage.batches.get("ada", self.batch.id))
        assert found is not None
        return found

    def change(self, holder: str, work: Awaitable[StoredBatch], to: str | None = None) -> None:
        """A change by a server: as the graph says if it holds the lease, none at all otherwise."""
        before = self.stored()
        try:
            after = self.run(work)
        except LeaseLost:
            assert self.holder != holder
            assert self.stored() == before
        except StorageError:
            assert to is not None
            assert to not in TRANSITIONS[before.status]
            assert self.stored() == before
        else:
            assert self.holder == holder
            assert after == self.stored()
            if after.status != before.status:
                assert after.status == to
                assert to in TRANSITIONS[before.status]
                assert after.times[to] == self.clock.now

    @rule(seconds=st.sampled_from([1.0, LEASE_S - 1, LEASE_S]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(holder=HOLDERS, other_is_gone=st.booleans())
    def claim(self, holder: str, other_is_gone: bool) -> None:
        claimed = self.run(self.storage.batches.claim(holder, lambda name: other_is_gone))
        free = self.holder is None or self.held_until <= self.clock.now or other_is_gone
        assert (claimed is not None) == (free and self.stored().status in LIVE)
        if claimed is not None:
            self.holder, self.held_until = holder, self.clock.now + LEASE_S

    @rule(holder=HOLDERS)
    def renew(self, holder: str) -> None:
        self.change(holder, self.storage.batches.renew(self.batch, holder))
        if self.holder == holder:
            self.held_until = self.clock.now + LEASE_S

    @rule(holder=HOLDERS)
    def release(self, holder: str) -> None:
        before = self.stored()
        self.run(self.storage.batches.release(self.batch, holder))
        self.holder = None if self.holder == holder else self.holder
        assert self.stored() == before

    @rule(holder=HOLDERS)
    def begin(self, holder: str) -> None:
        self.change(holder, self.storage.batches.begin(self.batch, holder, 6, "nano"), "in_progress")

    @rule(holder=HOLDERS)
    def fail(self, holder: str) -> None:
        errors = [LineError("invalid", "a NUL \0 and a quote '", 3)]
        self.change(holder, self.storage.batches.fail(self.batch, holder, errors), "failed")
        if self.stored().status not in LIVE:
            self.holder = None

    @rule(holder=HOLDERS, numbers=NUMBERS, failed=st.booleans())
    def add(self, holder: str, numbers: list[int], failed: bool) -> None:
        results = [LineResult(number, b"%d\n" % number, failed, Usage(1, 0, 1, 0)) for number in numbers]
        self.change(holder, self.storage.batches.add_results(self.batch, holder, results))
        if self.holder == holder:
            for number in numbers:
                self.results.setdefault(number, failed)

    @rule(holder=HOLDERS)
    def finalize(self, holder: str) -> None:
        self.change(holder, self.storage.batches.finalize(self.batch, holder), "finalizing")

    @rule(holder=HOLDERS, status=st.sampled_from(["completed", "expired", "cancelled"]))
    def end(self, holder: str, status: str) -> None:
        self.change(holder, self.storage.batches.end(self.batch, holder, status, {}), status)
        if self.stored().status not in LIVE:
            self.holder = None

    @rule()
    def cancel(self) -> None:
        before = self.stored()
        may = before.status == "cancelling" or "cancelling" in TRANSITIONS[before.status]
        try:
            after = self.run(self.storage.batches.cancel("ada", self.batch.id))
        except RequestError:
            assert not may
            assert self.stored() == before
        else:
            assert may
            assert after is not None
            assert after.status == "cancelling"

    @precondition(lambda self: self.stored().status not in LIVE)
    @rule()
    def sweep(self) -> None:
        before = self.stored()
        self.run(self.storage.sweep())
        assert self.stored() == before
        assert self.run(self.storage.batches.finished(self.batch, range(10))) == set()

    @invariant()
    def counts_are_those_of_the_results(self) -> None:
        batch = self.stored()
        assert batch.num_failed == sum(self.results.values())
        assert batch.num_completed == len(self.results) - batch.num_failed
        assert batch.usage.input_tokens == len(self.results)
        if batch.status in LIVE:
            assert self.run(self.storage.batches.finished(batch, range(10))) == set(self.results)


TestBatchMachine = BatchMachine.TestCase
TestBatchMachine.settings = settings(max_examples=8, stateful_step_count=16, deadline=None)
