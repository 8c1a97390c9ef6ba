"""A database on threads of its own: transactions as functions, never on the event loop.

SQLite has one writer at a time, so its writes share one thread; reads go beside them (write-ahead log). A commit is on
the disk before `write` returns.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from ramify.errors import ConfigError, StorageError, StorageFullError
from ramify.serving.storage.schema import prepare_schema
from ramify.serving.storage.tables import Base

T = TypeVar("T")
READERS = 4
BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for another process's."""
_ATTEMPTS = 5
_POSTGRES_FULL = "53100"
_POSTGRES_AGAIN = ("40001", "40P01")  # serialization failure, deadlock: rolled back whole, so it may run again


def default_path() -> Path:
    """Where the storage lies unless an option says otherwise: in the user's state folder."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "ramify" / "server.db"


def storage_url(text: str) -> URL:
    """The database that an option names: "" (the default), ":memory:", a file's path, or a URL.

    Raises:
        ConfigError: it is neither SQLite nor PostgreSQL.
    """
    if text == ":memory:":
        return URL.create("sqlite")
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser() if text else default_path()))
    try:
        url = make_url(text)
    except (sql.exc.ArgumentError, ValueError) as error:
        raise ConfigError("the storage's URL cannot be read: use postgresql://user@host/database or a path") from error
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "postgresql+psycopg"):
        return url
    raise ConfigError(f"storage on {url.drivername!r} is not supported: use a path (SQLite) or postgresql://...")


class Database:
    """Transactions on SQLite or PostgreSQL.

    Args:
        url: as `storage_url` gives it.

    Attributes:
        observe: told of every transaction: "read" or "write", and the seconds that it took, waiting included.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self.sqlite = url.drivername == "sqlite"
        self._in_memory = self.sqlite and url.database in (None, "", ":memory:")
        self.observe: Callable[[str, float], None] = lambda kind, seconds: None
        self._writers: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Connect; make the tables if there are none.

        Raises:
            StorageError: it cannot be reached, or holds something else, or tables of a newer version.
        """
        self._writers = ThreadPoolExecutor(1 if self.sqlite else READERS, "storage")
        self._readers = self._writers if self._in_memory else ThreadPoolExecutor(READERS, "storage-read")
        try:
            await self._on(self._writers, self._open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what runs and disconnect."""
        pools = [pool for pool in (self._writers, self._readers) if pool is not None]
        self._writers = self._readers = None
        for pool in pools:
            await asyncio.to_thread(pool.shutdown)
        engine = getattr(self, "_engine", None)
        if engine is not None:
            await asyncio.to_thread(engine.dispose)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run a transaction that changes nothing.

        Raises:
            StorageError: the database failed.
        """
        return await self._timed("read", self._on(self._readers, self._attempts, work, "read"))

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run a transaction; it is stored whole, on the disk, or not at all. `work` may run more than once.

        Raises:
            StorageFullError: there is no room; nothing was changed.
            StorageError: the database failed.
        """
        return await self._timed("write", self._on(self._writers, self._attempts, work, "write"))

    async def _timed(self, kind: str, transaction: Awaitable[T]) -> T:
        began_s = time.perf_counter()
        try:
            return await transaction
        finally:
            self.observe(kind, time.perf_counter() - began_s)

    async def _on(self, pool: ThreadPoolExecutor | None, call: Callable[..., T], *arguments: Any) -> T:
        if pool is None:
            raise StorageError("the storage is closed")
        return await asyncio.get_running_loop().run_in_executor(pool, call, *arguments)

    def _attempts(self, work: Callable[[Session], T], kind: str) -> T:
        engine = self._write_engine if kind == "write" else self._engine
        attempt = 1
        while True:
            try:
                with Session(engine, expire_on_commit=False) as session, session.begin():
                    return work(session)
            except sql.exc.DBAPIError as error:
                told = storage_error(error)
                again = getattr(error.orig, "sqlstate", None) in _POSTGRES_AGAIN and attempt < _ATTEMPTS
                if isinstance(told, StorageFullError) and self.sqlite and attempt == 1:
                    again = self._empty_log()
                if not again:
                    raise told from error
                attempt += 1

    def _empty_log(self) -> bool:
        """Write SQLite's log into its database: its room on the disk may be what is lacking. Whether it worked."""
        connection = self._engine.raw_connection()
        try:
            blocked, _, _ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not blocked
        except sqlite3.Error:
            return False
        finally:
            connection.close()

    def _open(self) -> None:
        if self.sqlite and not self._in_memory:
            _private_file(Path(str(self._url.database)))
        self._engine = self._make_engine()
        self._write_engine = self._engine.execution_options(ramify_begin="BEGIN IMMEDIATE")
        try:
            prepare_schema(self._write_engine, sqlite=self.sqlite)
        except sql.exc.DBAPIError as error:
            raise storage_error(error) from error

    def _make_engine(self) -> sql.Engine:
        if not self.sqlite:
            return sql.create_engine(self._url, pool_pre_ping=True, pool_size=2 * READERS)
        options: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        pool: dict[str, Any] = {"poolclass": StaticPool} if self._in_memory else {"pool_size": 2 * READERS}
        engine = sql.create_engine(self._url, connect_args=options, **pool)
        sql.event.listen(engine, "connect", _set_up_sqlite)
        sql.event.listen(engine, "begin", _begin_sqlite)
        return engine


def insert(session: Session, table: type[Base]) -> sqlite.Insert:
    """An insert that may say what happens to a row that is there already; both databases mean the same by it."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    return cast(sqlite.Insert, postgresql.insert(table))


def storage_error(error: sql.exc.DBAPIError) -> StorageError:
    """What the database said, as an error of ramify's."""
    original = error.orig
    code = getattr(original, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL or getattr(original, "sqlstate", None) == _POSTGRES_FULL:
        return StorageFullError("the storage's disk is full: make room on it, or delete files")
    if code == sqlite3.SQLITE_NOTADB:
        return StorageError("the storage's file is not an SQLite database: choose another path")
    return StorageError(f"the storage failed: {original}")


def _private_file(path: Path) -> None:
    """Make the file before SQLite does: prompts and digests of keys are for its owner's eyes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StorageError(f"the storage cannot be kept at {path}: {error.strerror}; choose another path") from error


def _set_up_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, with the lock that we say
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sql.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("ramify_begin", "BEGIN"))
