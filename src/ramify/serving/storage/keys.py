"""API keys: digests and limits. The key itself is never here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sql
from sqlalchemy.orm import Session

from ramify.errors import RequestError
from ramify.serving.storage.database import Database, insert
from ramify.serving.storage.records import StoredKey, new_id
from ramify.serving.storage.tables import KeyRow


class Keys:
    """All keys of the server.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self,
        name: str,
        digest: bytes,
        owner: str,
        limits: Mapping[str, Any] | None = None,
        expires_at: float | None = None,
        key_id: str | None = None,
    ) -> StoredKey:
        """Store a key's digest under a name that no other key has; `key_id` None makes one up.

        Raises:
            RequestError: the name (or the key) is taken.
        """
        key = StoredKey(key_id or new_id("key_"), digest, name, owner, limits or {}, self._clock(), expires_at)

        def work(session: Session) -> StoredKey | None:
            row = insert(session, KeyRow).values(
                id=key.id, digest=digest, name=name, owner=owner, limits_json=json.dumps(dict(key.limits)),
                created_at=key.created_at, expires_at=expires_at,
            )  # fmt: skip
            new = session.scalar(row.on_conflict_do_nothing().returning(KeyRow.id))
            return key if new is not None else None

        stored = await self._database.write(work)
        if stored is None:
            raise RequestError(
                f"there is a key named {name!r} already (or with its id): delete it, or choose another name"
            )
        return stored

    async def get(self, key_id: str) -> StoredKey | None:
        """The key of an id, also if it was revoked or has expired: whoever asks decides."""
        return await self._one(KeyRow.id == key_id)

    async def by_digest(self, digest: bytes) -> StoredKey | None:
        """The key of a digest, also if it was revoked or has expired."""
        return await self._one(KeyRow.digest == digest)

    async def by_name(self, name: str) -> StoredKey | None:
        """The key of a name, also if it was revoked or has expired."""
        return await self._one(KeyRow.name == name)

    async def list(self) -> list[StoredKey]:
        """All keys, by age."""

        def work(session: Session) -> list[StoredKey]:
            return [_record(row) for row in session.scalars(sql.select(KeyRow).order_by(KeyRow.created_at, KeyRow.id))]

        return await self._database.read(work)

    async def revoke(self, name: str) -> bool:
        """End a key now; False if there is none of the name that is still good. Its name stays taken."""
        now = self._clock()
        change = sql.update(KeyRow).where(KeyRow.name == name, KeyRow.revoked_at.is_(None)).values(revoked_at=now)
        return await self._database.write(lambda session: session.scalar(change.returning(KeyRow.id))) is not None

    async def delete(self, name: str) -> bool:
        """Forget a key and its name; False if there is none."""
        gone = sql.delete(KeyRow).where(KeyRow.name == name).returning(KeyRow.id)
        return await self._database.write(lambda session: session.scalar(gone)) is not None

    async def _one(self, where: sql.ColumnElement[bool]) -> StoredKey | None:
        def work(session: Session) -> StoredKey | None:
            row = session.scalar(sql.select(KeyRow).where(where))
            return None if row is None else _record(row)

        return await self._database.read(work)


def _record(row: KeyRow) -> StoredKey:
    limits = json.loads(row.limits_json)
    return StoredKey(row.id, row.digest, row.name, row.owner, limits, row.created_at, row.expires_at, row.revoked_at)
