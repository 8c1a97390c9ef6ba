"""The tables of the server's storage, the same on SQLite and PostgreSQL.

`SCHEMA_VERSION` grows with every change here; a database says in `ramify_schema` which one it holds.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = 1
_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only a column of the type INTEGER


class Base(DeclarativeBase):
    """Base of all tables. Times are Unix seconds, JSON is ASCII text (PostgreSQL's text holds no NUL)."""

    type_annotation_map = {str: Text, int: BigInteger, bytes: LargeBinary}  # noqa: RUF012 - SQLAlchemy's own form


class SchemaRow(Base):
    """One row: the version of the tables."""

    __tablename__ = "ramify_schema"
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class TenantRow(Base):
    """Bytes that an owner's files, responses and traces take, kept in the transactions that change them."""

    __tablename__ = "tenants"
    owner: Mapped[str] = mapped_column(primary_key=True)
    num_bytes: Mapped[int]


class FileRow(Base):
    """A file. `ready` is 0 while it is written: nobody sees it then, and one that is left behind is swept away."""

    __tablename__ = "files"
    serial: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    owner: Mapped[str]
    filename: Mapped[str]
    purpose: Mapped[str]
    num_bytes: Mapped[int]
    ready: Mapped[int]
    created_at: Mapped[float]
    touched_at: Mapped[float]
    expires_at: Mapped[float | None]
    __table_args__ = (Index("files_of_owner", "owner", "serial"), Index("files_expiry", "expires_at"))


class FileChunkRow(Base):
    """A piece of a file's content."""

    __tablename__ = "file_chunks"
    file_serial: Mapped[int] = mapped_column(_Number, ForeignKey("files.serial", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[bytes]


class BatchRow(Base):
    """A batch: what was asked for, where it stands, and which server works on it until when."""

    __tablename__ = "batches"
    serial: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    owner: Mapped[str]
    caller: Mapped[str]
    endpoint: Mapped[str]
    input_file_id: Mapped[str]
    completion_window: Mapped[str]
    metadata_json: Mapped[str | None]
    seed: Mapped[int]
    output_retention_s: Mapped[float | None]
    status: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float]
    in_progress_at: Mapped[float | None]
    finalizing_at: Mapped[float | None]
    completed_at: Mapped[float | None]
    failed_at: Mapped[float | None]
    expired_at: Mapped[float | None]
    cancelling_at: Mapped[float | None]
    cancelled_at: Mapped[float | None]
    model: Mapped[str | None]
    errors_json: Mapped[str | None]
    output_file_id: Mapped[str | None]
    error_file_id: Mapped[str | None]
    num_total: Mapped[int]
    num_completed: Mapped[int]
    num_failed: Mapped[int]
    input_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    output_tokens: Mapped[int]
    reasoning_tokens: Mapped[int]
    lease_holder: Mapped[str | None]
    lease_expires_at: Mapped[float | None]
    __table_args__ = (Index("batches_of_owner", "owner", "serial"), Index("batches_status", "status"))


class BatchResultRow(Base):
    """A finished line of a batch. The key makes a second answer to one line impossible."""

    __tablename__ = "batch_results"
    batch_serial: Mapped[int] = mapped_column(
        _Number, ForeignKey("batches.serial", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    failed: Mapped[int]
    data: Mapped[bytes]


class ResponseRow(Base):
    """A stored response of ``/v1/responses``."""

    __tablename__ = "responses"
    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    num_bytes: Mapped[int]
    data: Mapped[bytes]
    __table_args__ = (Index("responses_expiry", "expires_at"),)


class TraceRow(Base):
    """The trace of one run of a method."""

    __tablename__ = "traces"
    serial: Mapped[int] = mapped_column(_Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    owner: Mapped[str]
    model: Mapped[str]
    strategy: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    num_bytes: Mapped[int]
    num_parts: Mapped[int]
    __table_args__ = (Index("traces_of_owner", "owner", "serial"), Index("traces_expiry", "expires_at"))


class TracePartRow(Base):
    """Some events of a trace, as lines of JSON."""

    __tablename__ = "trace_parts"
    trace_serial: Mapped[int] = mapped_column(
        _Number, ForeignKey("traces.serial", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[bytes]


class KeyRow(Base):
    """An API key: its digest, never the key."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    owner: Mapped[str]
    limits_json: Mapped[str]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
