"""What tests of the storage do often."""

from __future__ import annotations

from typing import Any

from ramify.serving.storage import Storage
from ramify.serving.storage.records import BatchRequest, StoredBatch, StoredFile


async def put_file(
    storage: Storage,
    content: bytes = b"{}\n",
    owner: str = "ada",
    purpose: str = "batch",
    filename: str = "a.jsonl",
    retention_s: float | None = None,
) -> StoredFile:
    """A whole file."""
    writer = await storage.files.writer(owner)
    await writer.write(content)
    return await writer.finish(filename, purpose, retention_s)


async def content_of(storage: Storage, file: StoredFile) -> bytes:
    """All of a file."""
    return b"".join([piece async for piece in storage.files.read(file)])


async def put_batch(storage: Storage, content: bytes = b"{}\n", owner: str = "ada", **changes: Any) -> StoredBatch:
    """A batch over a file of its own."""
    file = await put_file(storage, content, owner)
    request = {
        "owner": owner, "caller": owner, "endpoint": "/v1/completions", "input_file_id": file.id,
        "completion_window": "24h", "expires_after_s": 86_400.0,
    }  # fmt: skip
    return await storage.batches.create(BatchRequest(**{**request, **changes}))


def never(holder: str) -> bool:
    """Nobody is known to be gone."""
    return False
