"""Stored responses: a record by owner and id."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sql
from sqlalchemy.orm import Session

from ramify.serving.storage.database import Database
from ramify.serving.storage.limits import StorageLimits, expiry
from ramify.serving.storage.records import StoredResponse, is_id
from ramify.serving.storage.tables import ResponseRow
from ramify.serving.storage.tenants import charge


class Responses:
    """The responses of all owners.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(self, database: Database, limits: StorageLimits, clock: Callable[[], float]) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock

    async def put(self, owner: str, response_id: str, data: bytes) -> StoredResponse:
        """Store a response, or its next state; what was there under the id is replaced.

        Raises:
            ValueError: the id is another owner's, or no id.
            QuotaError, StorageError: it cannot be stored.
        """
        if not is_id(response_id):
            raise ValueError(f"{response_id!r} is no id of a response: use a prefix and letters or digits, resp_...")

        def work(session: Session) -> StoredResponse:
            row = session.get(ResponseRow, response_id, with_for_update=True)
            if row is not None and row.owner != owner:
                raise ValueError(f"{response_id!r} belongs to another owner")
            charge(session, owner, len(data) - (row.num_bytes if row else 0), self._limits.quota_bytes)
            if row is None:
                now = self._clock()
                expires_at = expiry(now, None, self._limits.response_retention_s)
                row = ResponseRow(id=response_id, owner=owner, created_at=now, expires_at=expires_at)
                session.add(row)
            row.data, row.num_bytes = data, len(data)
            session.flush()
            return _record(row)

        return await self._database.write(work)

    async def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """An owner's response."""

        def work(session: Session) -> StoredResponse | None:
            row = session.scalar(sql.select(ResponseRow).where(*self._visible(owner, response_id)))
            return None if row is None else _record(row)

        return await self._database.read(work) if is_id(response_id) else None

    async def delete(self, owner: str, response_id: str) -> bool:
        """Delete an owner's response; False if there is none."""
        where = self._visible(owner, response_id)
        return is_id(response_id) and await self._database.write(lambda session: _delete(session, *where)) == 1

    async def sweep(self, limit: int = 1000) -> int:
        """Delete up to `limit` expired responses; gives how many."""
        some = sql.select(ResponseRow.id).where(ResponseRow.expires_at <= self._clock()).limit(limit)
        return await self._database.write(lambda session: _delete(session, ResponseRow.id.in_(some)))

    def _visible(self, owner: str, response_id: str) -> tuple[sql.ColumnElement[bool], ...]:
        lasts = ResponseRow.expires_at.is_(None) | (ResponseRow.expires_at > self._clock())
        return ResponseRow.id == response_id, ResponseRow.owner == owner, lasts


def _delete(session: Session, *where: sql.ColumnElement[bool]) -> int:
    gone = sql.delete(ResponseRow).where(*where).returning(ResponseRow.owner, ResponseRow.num_bytes)
    rows = session.execute(gone, execution_options={"synchronize_session": False}).all()
    for owner, num_bytes in rows:
        charge(session, owner, -num_bytes)
    return len(rows)


def _record(row: ResponseRow) -> StoredResponse:
    return StoredResponse(row.id, row.owner, row.data, row.created_at, row.expires_at)
