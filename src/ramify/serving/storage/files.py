"""Files: content in pieces inside the database, so that a file and its record are one thing on every database.

A file is written in small transactions and becomes visible in the last; what a killed server left behind is swept away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import sqlalchemy as sql
from sqlalchemy.orm import InstrumentedAttribute, Session

from ramify.errors import RequestError, StorageError
from ramify.serving.storage.database import Database
from ramify.serving.storage.limits import StorageLimits, expiry
from ramify.serving.storage.paging import page_of
from ramify.serving.storage.records import LIVE, Order, Page, StoredFile, is_id, new_id
from ramify.serving.storage.tables import BatchRow, FileChunkRow, FileRow
from ramify.serving.storage.tenants import charge

CHUNK_BYTES = 2**20
ABANDONED_AFTER_S = 3600.0
"""A file that nobody has written to for so long will not be finished."""


class Files:
    """The files of all owners.

    Args:
        database: a started one, or one that will be.
        clock: Unix time in seconds.
    """

    def __init__(self, database: Database, limits: StorageLimits, clock: Callable[[], float]) -> None:
        self.database = database
        self.limits = limits
        self.clock = clock

    async def writer(self, owner: str, *, within_quota: bool = True) -> FileWriter:
        """Begin a file. `within_quota` False is for what the server itself writes: finished work is not thrown away."""
        now = self.clock()

        def work(session: Session) -> int:
            row = FileRow(
                id=new_id("file-"), owner=owner, filename="", purpose="", num_bytes=0, ready=0,
                created_at=now, touched_at=now,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row.serial

        quota = self.limits.quota_bytes if within_quota else 0
        return FileWriter(self, owner, await self.database.write(work), quota)

    async def get(self, owner: str, file_id: str) -> StoredFile | None:
        """An owner's file."""
        return await self.database.read(lambda session: _found(session, owner, file_id, self.clock()))

    async def of_batch(self, file_id: str) -> StoredFile | None:
        """The input of a batch: it is kept while the batch needs it, also beyond its own time."""

        def work(session: Session) -> StoredFile | None:
            row = session.scalar(sql.select(FileRow).where(FileRow.id == file_id, FileRow.ready == 1))
            return None if row is None else file_record(row)

        return await self.database.read(work)

    async def list(
        self,
        owner: str,
        *,
        after: str | None = None,
        limit: int = 10_000,
        order: Order = "desc",
        purpose: str | None = None,
    ) -> Page[StoredFile]:
        """An owner's files, by time.

        Raises:
            RequestError: the owner has no file `after`.
        """

        def work(session: Session) -> Page[StoredFile]:
            where = [_visible(self.clock())]
            if purpose is not None:
                where.append(FileRow.purpose == purpose)
            page = page_of(session, FileRow, owner, after, limit, order, *where)
            return Page(tuple(map(file_record, page.items)), page.has_more)

        return await self.database.read(work)

    async def read(self, file: StoredFile) -> AsyncIterator[bytes]:
        """A file's content, in pieces of up to 1 MiB.

        Raises:
            StorageError: it was deleted meanwhile.
        """
        number, left = 0, file.num_bytes
        while left > 0:
            piece = await self._chunk(file.id, number)
            yield piece
            number, left = number + 1, left - len(piece)

    async def delete(self, owner: str, file_id: str) -> bool:
        """Delete an owner's file; False if there is none.

        Raises:
            RequestError: a batch still reads it.
        """

        def work(session: Session) -> bool:
            if _found(session, owner, file_id, self.clock(), lock=True) is None:
                return False
            reader = session.scalar(sql.select(BatchRow.id).where(_reads(file_id)).limit(1))
            if reader is not None:
                raise RequestError(f"{file_id} is the input of {reader}, which is not done: cancel that first")
            return delete_files(session, FileRow.id == file_id) == 1

        return await self.database.write(work)

    async def sweep(self, limit: int = 100) -> int:
        """Delete up to `limit` files that have expired or were never finished; gives how many."""

        def work(session: Session) -> int:
            now = self.clock()
            expired = sql.and_(FileRow.expires_at <= now, ~sql.exists().where(_reads(FileRow.id)))
            abandoned = sql.and_(FileRow.ready == 0, FileRow.touched_at < now - ABANDONED_AFTER_S)
            some = sql.select(FileRow.serial).where(expired | abandoned).limit(limit)
            return delete_files(session, FileRow.serial.in_(some))

        return await self.database.write(work)

    async def _chunk(self, file_id: str, number: int) -> bytes:
        which = sql.select(FileChunkRow.data).join(FileRow, FileRow.serial == FileChunkRow.file_serial)
        which = which.where(FileRow.id == file_id, FileChunkRow.number == number)
        piece = await self.database.read(lambda session: session.scalar(which))
        if piece is None:
            raise StorageError(f"{file_id} was deleted while it was read")
        return piece


class FileWriter:
    """A file that is being written; nobody sees it before `finish`. Made by `Files.writer`."""

    def __init__(self, files: Files, owner: str, serial: int, quota_bytes: int) -> None:
        self.num_bytes = 0
        self._files = files
        self._owner = owner
        self._serial = serial
        self._quota_bytes = quota_bytes
        self._num_chunks = 0
        self._buffer = bytearray()

    async def write(self, data: bytes) -> None:
        """Add to the content.

        Raises:
            QuotaError, StorageError: it cannot be stored.
        """
        self._buffer += data
        self.num_bytes += len(data)
        while len(self._buffer) >= CHUNK_BYTES:
            await self._store(bytes(self._buffer[:CHUNK_BYTES]))
            del self._buffer[:CHUNK_BYTES]

    async def flush(self) -> None:
        """Store what is buffered."""
        if self._buffer:
            await self._store(bytes(self._buffer))
            self._buffer.clear()

    async def finish(self, filename: str, purpose: str, retention_s: float | None = None) -> StoredFile:
        """Store the rest and show the file to its owner. `retention_s` None keeps it as long as other files."""
        await self.flush()
        return await self._files.database.write(lambda session: self.publish(session, filename, purpose, retention_s))

    def publish(self, session: Session, filename: str, purpose: str, retention_s: float | None = None) -> StoredFile:
        """The last step of `finish`, inside a transaction of the caller's; everything must be flushed."""
        row = self._row(session)
        row.filename, row.purpose, row.ready = filename, purpose, 1
        row.expires_at = expiry(row.created_at, retention_s, self._files.limits.file_retention_s)
        session.flush()
        return file_record(row)

    async def discard(self) -> None:
        """Take back what was written; harmless after `finish`."""
        unfinished = (FileRow.serial == self._serial, FileRow.ready == 0)
        await self._files.database.write(lambda session: delete_files(session, *unfinished))

    async def _store(self, data: bytes) -> None:
        def work(session: Session) -> None:
            charge(session, self._owner, len(data), self._quota_bytes)
            row = self._row(session)
            row.num_bytes += len(data)
            row.touched_at = self._files.clock()
            session.add(FileChunkRow(file_serial=self._serial, number=self._num_chunks, data=data))

        await self._files.database.write(work)
        self._num_chunks += 1

    def _row(self, session: Session) -> FileRow:
        row = session.get(FileRow, self._serial, with_for_update=True)
        if row is None:
            raise StorageError("a file was swept away while it was written: nothing came for too long")
        return row


def delete_files(session: Session, *where: sql.ColumnElement[bool]) -> int:
    """Delete files and give their bytes back to their owners; gives how many."""
    gone = sql.delete(FileRow).where(*where).returning(FileRow.owner, FileRow.num_bytes)
    rows = session.execute(gone, execution_options={"synchronize_session": False}).all()
    for owner, num_bytes in rows:
        charge(session, owner, -num_bytes)
    return len(rows)


def file_record(row: FileRow) -> StoredFile:
    """A row as a record."""
    return StoredFile(row.id, row.owner, row.filename, row.purpose, row.num_bytes, row.created_at, row.expires_at)


def _found(session: Session, owner: str, file_id: str, now: float, *, lock: bool = False) -> StoredFile | None:
    if not is_id(file_id):
        return None
    mine = sql.select(FileRow).where(FileRow.id == file_id, FileRow.owner == owner, _visible(now))
    row = session.scalar(mine.with_for_update() if lock else mine)
    return None if row is None else file_record(row)


def _visible(now: float) -> sql.ColumnElement[bool]:
    return sql.and_(FileRow.ready == 1, FileRow.expires_at.is_(None) | (FileRow.expires_at > now))


def _reads(file_id: str | InstrumentedAttribute[str]) -> sql.ColumnElement[bool]:
    return sql.and_(BatchRow.input_file_id == file_id, BatchRow.status.in_(LIVE))
