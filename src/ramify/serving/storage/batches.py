"""Batches: what clients asked for, and every finished line from the moment it is finished.

A server that works on a batch holds its lease. Every change that it makes is checked against the lease in the same
transaction, so a server that was thought dead and comes back changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

import sqlalchemy as sql
from sqlalchemy.orm import Session

from ramify.errors import RequestError
from ramify.serving.storage import batch_rows
from ramify.serving.storage.batch_rows import TRANSITIONS, LeaseLost, held, move, record
from ramify.serving.storage.database import Database, insert
from ramify.serving.storage.files import FileWriter
from ramify.serving.storage.paging import page_of
from ramify.serving.storage.records import (
    LIVE,
    BatchRequest,
    BatchStatus,
    LineError,
    LineResult,
    Order,
    Page,
    StoredBatch,
    is_id,
    new_id,
)
from ramify.serving.storage.tables import BatchResultRow, BatchRow

__all__ = ["LEASE_S", "TRANSITIONS", "Batches", "LeaseLost"]
LEASE_S = 30.0
"""A server that has not renewed its lease for so long is taken for dead. Clocks of servers agree far better."""
_RESULTS_AT_ONCE = 32


class Batches:
    """The batches of all owners.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def create(self, request: BatchRequest) -> StoredBatch:
        """Store a batch; a server will take it up.

        Raises:
            RequestError: its input is no batch file of the owner.
        """

        def work(session: Session) -> StoredBatch:
            now = self._clock()
            batch_rows.check_input(session, request, now)
            row = batch_rows.new_row(request, new_id("batch_"), now)
            session.add(row)
            session.flush()
            return record(row)

        return await self._database.write(work)

    async def get(self, owner: str, batch_id: str) -> StoredBatch | None:
        """An owner's batch."""

        def work(session: Session) -> StoredBatch | None:
            row = session.scalar(sql.select(BatchRow).where(BatchRow.id == batch_id, BatchRow.owner == owner))
            return None if row is None else record(row)

        return await self._database.read(work) if is_id(batch_id) else None

    async def list(
        self, owner: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
    ) -> Page[StoredBatch]:
        """An owner's batches, by time.

        Raises:
            RequestError: the owner has no batch `after`.
        """

        def work(session: Session) -> Page[StoredBatch]:
            page = page_of(session, BatchRow, owner, after, limit, order)
            return Page(tuple(map(record, page.items)), page.has_more)

        return await self._database.read(work)

    async def cancel(self, owner: str, batch_id: str) -> StoredBatch | None:
        """Ask for a batch's end; the server that works on it stops it. None if there is no such batch.

        Raises:
            RequestError: it has ended, or is about to.
        """

        def work(session: Session) -> StoredBatch | None:
            mine = sql.select(BatchRow).where(BatchRow.id == batch_id, BatchRow.owner == owner).with_for_update()
            row = session.scalar(mine)
            if row is None:
                return None
            if row.status != "cancelling":
                if "cancelling" not in TRANSITIONS[batch_rows.status(row)]:
                    raise RequestError(f"{batch_id} is {row.status}: it cannot be cancelled any more")
                move(row, "cancelling", self._clock())
            return record(row)

        return await self._database.write(work) if is_id(batch_id) else None

    # What follows is for the server that works on a batch.

    async def claim(
        self, holder: str, is_gone: Callable[[str], bool], not_of: Collection[str] = ()
    ) -> StoredBatch | None:
        """Take the lease of the oldest batch that nobody works on, if there is one.

        Args:
            holder: a name of its own for each time that a server takes a batch up.
            is_gone: whether a holder has surely ended, so that its lease need not be waited for.
            not_of: owners whose batches are left to wait.
        """
        live = BatchRow.status.in_(LIVE)

        def work(session: Session) -> StoredBatch | None:
            now = self._clock()
            held_by = sql.select(BatchRow.lease_holder).where(live, BatchRow.lease_holder.is_not(None)).distinct()
            gone = [name for name in session.scalars(held_by) if name is not None and is_gone(name)]
            lapsed = BatchRow.lease_expires_at.is_(None) | (BatchRow.lease_expires_at <= now)
            free = sql.select(BatchRow).where(live, lapsed | BatchRow.lease_holder.in_(gone))
            free = free.where(BatchRow.owner.not_in(not_of)).order_by(BatchRow.serial).limit(1)
            row = session.scalar(free.with_for_update(skip_locked=True))
            if row is None:
                return None
            row.lease_holder, row.lease_expires_at = holder, now + LEASE_S
            return record(row)

        return await self._database.write(work)

    async def renew(self, batch: StoredBatch, holder: str) -> StoredBatch:
        """Keep the lease; gives the batch as it stands now.

        Raises:
            LeaseLost: another server works on it.
        """

        def work(session: Session) -> StoredBatch:
            row = held(session, batch, holder)
            row.lease_expires_at = self._clock() + LEASE_S
            return record(row)

        return await self._database.write(work)

    async def release(self, batch: StoredBatch, holder: str, pause_s: float = 0.0) -> None:
        """Give the lease back; nobody takes it for `pause_s`. Harmless if it is lost."""

        def work(session: Session) -> None:
            mine = (BatchRow.serial == batch.serial, BatchRow.lease_holder == holder)
            until = self._clock() + pause_s if pause_s else None
            session.execute(sql.update(BatchRow).where(*mine).values(lease_holder=None, lease_expires_at=until))

        await self._database.write(work)

    async def begin(self, batch: StoredBatch, holder: str, num_total: int, model: str | None) -> StoredBatch:
        """The input is good: it has `num_total` lines. `model` is the one that all lines name, if there is one.

        Raises:
            LeaseLost: another server works on it.
        """

        def work(session: Session) -> StoredBatch:
            row = held(session, batch, holder)
            if row.status == "validating":
                row.num_total, row.model = num_total, model
                move(row, "in_progress", self._clock())
            return record(row)

        return await self._database.write(work)

    async def fail(self, batch: StoredBatch, holder: str, errors: Sequence[LineError]) -> StoredBatch:
        """The input is bad.

        Raises:
            LeaseLost: another server works on it.
        """

        def work(session: Session) -> StoredBatch:
            row = held(session, batch, holder)
            if row.status == "validating":
                row.errors_json = batch_rows.dump_errors(errors)
                move(row, "failed", self._clock())
                row.lease_holder = row.lease_expires_at = None
            return record(row)

        return await self._database.write(work)

    async def add_results(self, batch: StoredBatch, holder: str, results: Sequence[LineResult]) -> StoredBatch:
        """Store finished lines, each once: a line that has an answer keeps it. Gives the batch as it stands now.

        Raises:
            LeaseLost: another server works on it.
        """

        def work(session: Session) -> StoredBatch:
            row = held(session, batch, holder)
            values = [
                {"batch_serial": row.serial, "number": one.number, "failed": int(one.failed), "data": one.data}
                for one in results
            ]
            store = insert(session, BatchResultRow).on_conflict_do_nothing().returning(BatchResultRow.number)
            new = set(session.scalars(store, values))
            for result in results:
                if result.number in new:
                    new.discard(result.number)
                    batch_rows.count(row, result)
            return record(row)

        return await self._database.write(work)

    async def finished(self, batch: StoredBatch, numbers: Collection[int]) -> set[int]:
        """Those of some lines that have an answer."""
        row = BatchResultRow
        some = sql.select(row.number).where(row.batch_serial == batch.serial, row.number.in_(numbers))
        return await self._database.read(lambda session: set(session.scalars(some)))

    async def results(self, batch: StoredBatch, *, failed: bool) -> AsyncIterator[tuple[int, bytes]]:
        """The stored answers by line number: those of the output file, or of the error file."""
        last = -1
        while True:
            page = await self._results_after(batch, last, failed)
            for number, data in page:
                yield number, data
            if len(page) < _RESULTS_AT_ONCE:
                return
            last = page[-1][0]

    async def _results_after(self, batch: StoredBatch, last: int, failed: bool) -> Sequence[tuple[int, bytes]]:
        row = BatchResultRow
        some = sql.select(row.number, row.data).where(row.batch_serial == batch.serial, row.number > last)
        some = some.where(row.failed == int(failed)).order_by(row.number).limit(_RESULTS_AT_ONCE)
        return await self._database.read(lambda session: [(one.number, one.data) for one in session.execute(some)])

    async def finalize(self, batch: StoredBatch, holder: str) -> StoredBatch:
        """All lines are done: the files are written now.

        Raises:
            LeaseLost: another server works on it.
        """

        def work(session: Session) -> StoredBatch:
            row = held(session, batch, holder)
            if row.status == "in_progress":
                move(row, "finalizing", self._clock())
            return record(row)

        return await self._database.write(work)

    async def end(
        self,
        batch: StoredBatch,
        holder: str,
        status: BatchStatus,
        files: Mapping[str, FileWriter | None],
    ) -> StoredBatch:
        """The batch's end and its files ("output", "error"; flushed) become visible in one transaction.

        Raises:
            LeaseLost: another server works on it.
        """

        def work(session: Session) -> StoredBatch:
            row = held(session, batch, holder)
            move(row, status, self._clock())
            for kind, writer in files.items():
                if writer is not None:
                    name = f"{row.id}_{kind}.jsonl"
                    file = writer.publish(session, name, "batch_output", row.output_retention_s)
                    setattr(row, f"{kind}_file_id", file.id)
            row.lease_holder = row.lease_expires_at = None
            return record(row)

        return await self._database.write(work)

    async def sweep(self, limit: int = 1000) -> int:
        """Delete up to `limit` stored answers of batches that have ended (their files hold them); gives how many."""
        ended = sql.select(BatchRow.serial).where(BatchRow.status.not_in(LIVE))
        key = sql.tuple_(BatchResultRow.batch_serial, BatchResultRow.number)
        some = sql.select(BatchResultRow.batch_serial, BatchResultRow.number)
        some = some.where(BatchResultRow.batch_serial.in_(ended)).limit(limit)
        gone = sql.delete(BatchResultRow).where(key.in_(some)).returning(BatchResultRow.number)
        options = {"synchronize_session": False}
        return await self._database.write(lambda session: len(session.execute(gone, execution_options=options).all()))
