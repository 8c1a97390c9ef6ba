"""Traces of methods: events as lines of JSON, each part stored in a transaction as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import sqlalchemy as sql
from sqlalchemy.orm import Session

from ramify.errors import StorageError
from ramify.serving.storage.database import Database
from ramify.serving.storage.limits import StorageLimits, expiry
from ramify.serving.storage.paging import page_of
from ramify.serving.storage.records import Order, Page, StoredTrace, is_id, new_id
from ramify.serving.storage.tables import TracePartRow, TraceRow
from ramify.serving.storage.tenants import charge


class Traces:
    """The traces of all owners.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(self, database: Database, limits: StorageLimits, clock: Callable[[], float]) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock

    async def create(self, owner: str, model: str, strategy: str) -> StoredTrace:
        """Begin a trace."""

        def work(session: Session) -> StoredTrace:
            now = self._clock()
            row = TraceRow(
                id=new_id("trace_"), owner=owner, model=model, strategy=strategy, created_at=now,
                expires_at=expiry(now, None, self._limits.trace_retention_s), num_bytes=0, num_parts=0,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return _record(row)

        return await self._database.write(work)

    async def append(self, trace_id: str, lines: bytes) -> None:
        """Add events: whole lines, as `encode_event` gives them. They are on the disk when this returns.

        Raises:
            QuotaError: the owner's quota is used up.
            StorageError: there is no such trace (any more), or it cannot be stored.
        """

        def work(session: Session) -> None:
            row = _row(session, trace_id)
            charge(session, row.owner, len(lines), self._limits.quota_bytes)
            session.add(TracePartRow(trace_serial=row.serial, number=row.num_parts, data=lines))
            row.num_bytes += len(lines)
            row.num_parts += 1

        await self._database.write(work)

    async def finish(self, trace_id: str) -> None:
        """Say that the run ended and everything was appended."""

        def work(session: Session) -> None:
            _row(session, trace_id).finished_at = self._clock()

        await self._database.write(work)

    async def get(self, owner: str, trace_id: str) -> StoredTrace | None:
        """An owner's trace."""

        def work(session: Session) -> StoredTrace | None:
            row = session.scalar(sql.select(TraceRow).where(*self._visible(owner), TraceRow.id == trace_id))
            return None if row is None else _record(row)

        return await self._database.read(work) if is_id(trace_id) else None

    async def list(
        self, owner: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
    ) -> Page[StoredTrace]:
        """An owner's traces, by time.

        Raises:
            RequestError: the owner has no trace `after`.
        """

        def work(session: Session) -> Page[StoredTrace]:
            page = page_of(session, TraceRow, owner, after, limit, order, *self._visible(owner))
            return Page(tuple(map(_record, page.items)), page.has_more)

        return await self._database.read(work)

    async def read(self, trace: StoredTrace) -> AsyncIterator[bytes]:
        """The events of a trace as far as the record says, as lines of JSON.

        Raises:
            StorageError: it was deleted meanwhile.
        """
        number, left = 0, trace.num_bytes
        while left > 0:
            parts = await self._parts(trace.id, number)
            if not parts:
                raise StorageError(f"{trace.id} was deleted while it was read")
            lines = b"".join(parts)[:left]
            yield lines
            number, left = number + len(parts), left - len(lines)

    async def _parts(self, trace_id: str, start: int) -> Sequence[bytes]:
        which = sql.select(TracePartRow.data).join(TraceRow, TraceRow.serial == TracePartRow.trace_serial)
        which = which.where(TraceRow.id == trace_id, TracePartRow.number >= start)
        which = which.order_by(TracePartRow.number).limit(_PARTS_AT_ONCE)
        return await self._database.read(lambda session: session.scalars(which).all())

    async def delete(self, owner: str, trace_id: str) -> bool:
        """Delete an owner's trace; False if there is none."""
        where = (*self._visible(owner), TraceRow.id == trace_id)
        return is_id(trace_id) and await self._database.write(lambda session: _delete(session, *where)) == 1

    async def sweep(self, limit: int = 100) -> int:
        """Delete up to `limit` expired traces; gives how many."""
        some = sql.select(TraceRow.serial).where(TraceRow.expires_at <= self._clock()).limit(limit)
        return await self._database.write(lambda session: _delete(session, TraceRow.serial.in_(some)))

    def _visible(self, owner: str) -> tuple[sql.ColumnElement[bool], ...]:
        return TraceRow.owner == owner, TraceRow.expires_at.is_(None) | (TraceRow.expires_at > self._clock())


_PARTS_AT_ONCE = 64


def _row(session: Session, trace_id: str) -> TraceRow:
    row = session.scalar(sql.select(TraceRow).where(TraceRow.id == trace_id).with_for_update())
    if row is None:
        raise StorageError(f"there is no trace {trace_id!r}: it was deleted")
    return row


def _delete(session: Session, *where: sql.ColumnElement[bool]) -> int:
    gone = sql.delete(TraceRow).where(*where).returning(TraceRow.owner, TraceRow.num_bytes)
    rows = session.execute(gone, execution_options={"synchronize_session": False}).all()
    for owner, num_bytes in rows:
        charge(session, owner, -num_bytes)
    return len(rows)


def _record(row: TraceRow) -> StoredTrace:
    return StoredTrace(
        row.id, row.owner, row.model, row.strategy, row.created_at, row.expires_at, row.finished_at, row.num_bytes
    )
