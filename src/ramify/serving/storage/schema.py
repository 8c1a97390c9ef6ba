"""The version of the tables: made where there are none, refused where they are not ours or of a later time."""

from __future__ import annotations

import sqlalchemy as sql
from sqlalchemy.orm import Session

from ramify.errors import StorageError
from ramify.serving.storage.tables import SCHEMA_VERSION, Base, SchemaRow

_LOCK = 0x72616D696679  # "ramify": servers that start together on one PostgreSQL make the tables one after the other


def prepare_schema(engine: sql.Engine, *, sqlite: bool) -> None:
    """Make the tables in an empty database; check the version in another.

    Raises:
        StorageError: the database holds other tables, or those of another version.
    """
    with engine.begin() as connection:
        if not sqlite:
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
        names = set(sql.inspect(connection).get_table_names())
        if not names:
            Base.metadata.create_all(connection)
            connection.execute(sql.insert(SchemaRow).values(version=SCHEMA_VERSION))
            return
        if SchemaRow.__tablename__ not in names:
            raise StorageError(
                f"the storage's database belongs to another program (it has a table {min(names)!r}): "
                "give ramify a database of its own"
            )
        _check_version(connection)


def _check_version(connection: sql.Connection) -> None:
    found = Session(connection).scalar(sql.select(SchemaRow.version))
    if found == SCHEMA_VERSION:
        return
    if found is not None and found > SCHEMA_VERSION:
        raise StorageError(
            f"the storage was written by a newer ramify (its tables have version {found}, this one knows "
            f"{SCHEMA_VERSION}): update ramify, or choose another storage"
        )
    raise StorageError(f"the storage's tables have version {found}, which this ramify cannot read: choose another one")
