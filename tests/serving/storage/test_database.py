"""The database underneath: what it refuses, who may read it, a full disk, and what survives."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sql

from ramify.errors import ConfigError, StorageError, StorageFullError
from ramify.serving.storage import Storage
from ramify.serving.storage.database import default_path, storage_url
from ramify.serving.storage.tables import SCHEMA_VERSION
from tests.serving.storage.helpers import content_of, put_file


async def test_what_was_stored_is_there_after_a_restart(url: str) -> None:
    async with Storage(url) as first:
        file = await put_file(first, b"kept")
    async with Storage(url) as second:
        assert await content_of(second, file) == b"kept"


async def test_two_servers_may_start_on_an_empty_database_at_once(url: str) -> None:
    async with Storage(url) as first, Storage(url) as second:
        file = await put_file(first)
        assert await second.files.get("ada", file.id) == file
    many = [Storage(url) for _ in range(3)]
    await asyncio.gather(*(each.start() for each in many))
    await asyncio.gather(*(each.close() for each in many))


async def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    async with Storage(url) as storage:
        newer = sql.text(f"UPDATE ramify_schema SET version = {SCHEMA_VERSION + 1}")
        await storage._database.write(lambda session: session.execute(newer))
    with pytest.raises(StorageError, match="newer ramify"):
        await Storage(url).start()


async def test_another_programs_database_is_refused(tmp_path: Path, new_postgres: Callable[[], str]) -> None:
    path, url = tmp_path / "theirs.db", new_postgres()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    engine = sql.create_engine(storage_url(url))
    with engine.begin() as there:
        there.execute(sql.text("CREATE TABLE theirs (x int)"))
    engine.dispose()
    for place in (str(path), url):
        with pytest.raises(StorageError, match="another program"):
            await Storage(place).start()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be told from an empty one" * 20)
    with pytest.raises(StorageError, match="not an SQLite database"):
        await Storage(str(path)).start()
    assert path.read_text().startswith("not a database")


async def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another path"):
        await Storage(str(tmp_path / "file" / "server.db")).start()


async def test_a_postgresql_that_is_not_there_is_an_error_without_its_password() -> None:
    with pytest.raises(StorageError) as caught:
        await Storage("postgresql://someone:secret@127.0.0.1:1/nothing").start()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://host/x", "://", "sqlite+aiosqlite:///x", "http://host"])
def test_other_databases_are_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError):
        Storage(url)


def test_the_default_is_in_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert storage_url("").database == str(default_path()) == str(tmp_path / "ramify" / "server.db")


async def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "server.db"
    async with Storage(str(path)):
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (path.parent, *path.parent.iterdir())}
    assert modes.pop("new") == 0o700
    assert set(modes.values()) == {0o600}
    assert "server.db-wal" in modes


async def test_commits_are_on_the_disk_and_foreign_keys_hold(tmp_path: Path) -> None:
    async with Storage(str(tmp_path / "server.db")) as storage:
        for pragma, value in (("synchronous", 2), ("foreign_keys", 1), ("journal_mode", "wal")):
            text = sql.text(f"PRAGMA {pragma}")
            for run in (storage._database.read, storage._database.write):
                assert await run(lambda session, text=text: session.scalar(text)) == value


async def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    async with Storage(str(tmp_path / "server.db")) as storage:
        kept = await put_file(storage, b"k" * 100_000)
        room = {"pages": 300}

        def bound(connection: sqlite3.Connection, *rest: object) -> None:
            connection.execute(f"PRAGMA max_page_count={room['pages']}")

        sql.event.listen(storage._database._engine, "checkout", bound)
        writer = await storage.files.writer("ada")
        with pytest.raises(StorageFullError, match="full"):
            await writer.write(b"x" * 2_000_000)
        await writer.discard()
        with pytest.raises(StorageFullError):
            await storage.responses.put("ada", "resp_1", b"x" * 2_000_000)
        assert await storage.responses.get("ada", "resp_1") is None
        assert await storage.stored_bytes("ada") == 100_000
        assert await content_of(storage, kept) == b"k" * 100_000
        room["pages"] = 100_000
        await put_file(storage, b"x" * 2_000_000)


async def test_a_closed_storage_says_so() -> None:
    storage = Storage(":memory:")
    with pytest.raises(StorageError, match="closed"):
        await storage.keys.list()


async def test_a_database_that_goes_away_is_an_error_and_its_return_is_noticed(new_postgres: Callable[[], str]) -> None:
    url, ours = new_postgres(), "application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
    cut = sql.text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
    async with Storage(url) as storage, Storage(url) as other:
        file = await put_file(storage)
        await other._database.write(lambda session: session.execute(cut))
        assert await storage.files.get("ada", file.id) == file
