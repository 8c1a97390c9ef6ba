"""Rows of batches: which state may follow which, the lease, the counts, and the record that others see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import cast

import sqlalchemy as sql
from sqlalchemy.orm import Session

from ramify.errors import RequestError, StorageError
from ramify.serving.storage.records import BatchRequest, BatchStatus, LineError, LineResult, StoredBatch, Usage, is_id
from ramify.serving.storage.tables import BatchRow, FileRow

TRANSITIONS: Mapping[BatchStatus, frozenset[BatchStatus]] = {
    "validating": frozenset({"in_progress", "failed", "cancelling", "expired"}),
    "in_progress": frozenset({"finalizing", "cancelling", "expired"}),
    "finalizing": frozenset({"completed"}),
    "cancelling": frozenset({"cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "expired": frozenset(),
    "cancelled": frozenset(),
}
"""Which states may follow which."""


class LeaseLost(StorageError):  # noqa: N818 - a signal to whoever works on the batch rather than a fault
    """Another server works on the batch now (or it has ended)."""


def new_row(request: BatchRequest, batch_id: str, now: float) -> BatchRow:
    """The row of a batch that was asked for now."""
    return BatchRow(
        id=batch_id,
        owner=request.owner,
        caller=request.caller,
        endpoint=request.endpoint,
        input_file_id=request.input_file_id,
        completion_window=request.completion_window,
        metadata_json=None if request.metadata is None else json.dumps(dict(request.metadata)),
        seed=request.seed,
        output_retention_s=request.output_retention_s,
        status="validating",
        created_at=now,
        expires_at=now + request.expires_after_s,
        num_total=0,
        num_completed=0,
        num_failed=0,
        input_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
    )


def check_input(session: Session, request: BatchRequest, now: float) -> None:
    """Raises RequestError: the input is no batch file of the owner."""
    file_id = request.input_file_id
    lasts = FileRow.expires_at.is_(None) | (FileRow.expires_at > now)
    mine = (FileRow.id == file_id, FileRow.owner == request.owner, FileRow.ready == 1, lasts)
    found = sql.select(FileRow.purpose).where(*mine).with_for_update()  # it is not deleted before the batch is stored
    purpose = session.scalar(found) if is_id(file_id) else None
    if purpose is None:
        raise RequestError(f"there is no file {file_id[:100]!r}: upload one with purpose 'batch'")
    if purpose != "batch":
        raise RequestError(f"{file_id} has purpose {purpose!r}: the input of a batch is uploaded with purpose 'batch'")


def held(session: Session, batch: StoredBatch, holder: str) -> BatchRow:
    """The row of a batch, locked; raises `LeaseLost` if `holder` does not hold it."""
    mine = (BatchRow.serial == batch.serial, BatchRow.lease_holder == holder)
    row = session.scalar(sql.select(BatchRow).where(*mine).with_for_update())
    if row is None:
        raise LeaseLost(f"{batch.id} is another server's now")
    return row


def status(row: BatchRow) -> BatchStatus:
    """The state of a row."""
    return cast(BatchStatus, row.status)


def move(row: BatchRow, to: BatchStatus, now: float) -> None:
    """Change the state and note when.

    Raises:
        StorageError: the state may not follow.
    """
    if to not in TRANSITIONS[status(row)]:
        raise StorageError(f"{row.id} is {row.status}: it cannot become {to}")
    row.status = to
    setattr(row, f"{to}_at", now)


def count(row: BatchRow, result: LineResult) -> None:
    """Add a finished line to the batch's counts."""
    if result.failed:
        row.num_failed += 1
    else:
        row.num_completed += 1
    row.input_tokens += result.usage.input_tokens
    row.cached_tokens += result.usage.cached_tokens
    row.output_tokens += result.usage.output_tokens
    row.reasoning_tokens += result.usage.reasoning_tokens


def dump_errors(errors: Sequence[LineError]) -> str:
    """Errors of the input as the row keeps them."""
    return json.dumps([asdict(error) for error in errors])


def record(row: BatchRow) -> StoredBatch:
    """A row as a record."""
    states = (state for state in TRANSITIONS if state != "validating")
    times = {state: getattr(row, f"{state}_at") for state in states}
    return StoredBatch(
        serial=row.serial,
        id=row.id,
        request=_request(row),
        status=status(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
        times={state: time for state, time in times.items() if time is not None},
        model=row.model,
        errors=tuple(LineError(**error) for error in json.loads(row.errors_json or "[]")),
        output_file_id=row.output_file_id,
        error_file_id=row.error_file_id,
        num_total=row.num_total,
        num_completed=row.num_completed,
        num_failed=row.num_failed,
        usage=Usage(row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens),
    )


def _request(row: BatchRow) -> BatchRequest:
    return BatchRequest(
        owner=row.owner,
        caller=row.caller,
        endpoint=row.endpoint,
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        expires_after_s=row.expires_at - row.created_at,
        metadata=None if row.metadata_json is None else json.loads(row.metadata_json),
        seed=row.seed,
        output_retention_s=row.output_retention_s,
    )
