"""What the storage gives and takes: plain frozen records, never rows of a table. Times are Unix seconds."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")
Order = Literal["asc", "desc"]
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
LIVE: tuple[BatchStatus, ...] = ("validating", "in_progress", "finalizing", "cancelling")
"""States of a batch that still has work to do."""
_ID = re.compile(r"[a-z]{2,12}[-_][0-9A-Za-z]{1,64}")


def new_id(prefix: str) -> str:
    """An id that nobody can guess, such as "file-..." for the prefix "file-"."""
    return prefix + secrets.token_hex(16)


def is_id(text: str) -> bool:
    """Whether a text from a client can be an id at all. Nothing else is ever handed to a database as one."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, and whether it goes on."""

    items: tuple[T, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file; its content is read in pieces."""

    id: str
    owner: str
    filename: str
    purpose: str
    num_bytes: int
    created_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a batch's answers."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a client asks for.

    Attributes:
        caller: name of the key that asked; its lines run under it.
        expires_after_s: the completion window.
        seed: lines that name no seed draw from this one and their custom_id.
        output_retention_s: how long the output files are kept; None takes the storage's own.
    """

    owner: str
    caller: str
    endpoint: str
    input_file_id: str
    completion_window: str
    expires_after_s: float
    metadata: Mapping[str, str] | None = None
    seed: int = 0
    output_retention_s: float | None = None


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with a batch's input: OpenAI's batch error."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as it stands. `serial` is the storage's own number of it."""

    serial: int
    id: str
    request: BatchRequest
    status: BatchStatus
    created_at: float
    expires_at: float
    times: Mapping[str, float]
    model: str | None
    errors: tuple[LineError, ...]
    output_file_id: str | None
    error_file_id: str | None
    num_total: int
    num_completed: int
    num_failed: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class LineResult:
    """A finished line: `data` is the line of the output file, or of the error file if it `failed`."""

    number: int
    data: bytes
    failed: bool = False
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response; `data` is whatever its maker needs to go on from it."""

    id: str
    owner: str
    data: bytes
    created_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """The trace of a run; `finished_at` is None while it runs (or if it was killed)."""

    id: str
    owner: str
    model: str
    strategy: str
    created_at: float
    expires_at: float | None
    finished_at: float | None
    num_bytes: int


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key. Only `digest` is kept of the key itself; names are unique."""

    id: str
    digest: bytes
    name: str
    owner: str
    limits: Mapping[str, Any]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
