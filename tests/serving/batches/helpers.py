"""A batch worker on a server without engines: its lines are answered by a function of the test's."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from ramify.serving.auth import Caller
from ramify.serving.batches import BatchWorker
from ramify.serving.config import ServerConfig
from ramify.serving.server import Server
from ramify.serving.storage import Storage
from ramify.serving.storage.records import LIVE, BatchRequest, StoredBatch

ENDPOINT = "/v1/completions"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
Fault = Callable[[str], Awaitable[None]]


def line(number: int, **changes: Any) -> dict[str, Any]:
    """A good line."""
    body = {"model": "nano", "prompt": f"p{number}"}
    return {"custom_id": f"r{number}", "method": "POST", "url": ENDPOINT, "body": body, **changes}


def jsonl(lines: Iterable[dict[str, Any]]) -> bytes:
    """Lines as a file."""
    return "".join(json.dumps(each) + "\n" for each in lines).encode()


class Answerer:
    """Stands in for the endpoints: the answer is a function of prompt and seed; counts what it was asked.

    Args:
        fault: runs before each answer with the prompt; may wait or raise.
    """

    def __init__(self, fault: Fault | None = None) -> None:
        self._fault = fault
        self.asked: Counter[str] = Counter()
        self.bodies: dict[str, dict[str, Any]] = {}
        self.running = self.most = 0

    async def __call__(
        self, server: Server, caller: Caller, endpoint: str, body: dict[str, Any], request_id: str
    ) -> dict[str, Any]:
        prompt = body["prompt"]
        self.asked[prompt] += 1
        self.bodies[prompt] = body
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            if self._fault is not None:
                await self._fault(prompt)
        finally:
            self.running -= 1
        return {"choices": [{"text": f"{prompt}:{body.get('seed')}"}], "usage": USAGE}


@asynccontextmanager
async def started_server(storage: Storage | None = None, concurrency: int = 4) -> AsyncIterator[Server]:
    """A server whose storage and keys run, and nothing else."""
    server = Server(ServerConfig({"nano": "nano"}, storage_url=":memory:", batch_concurrency=concurrency))
    if storage is not None:
        server.storage = storage
    await server.storage.start()
    try:
        yield server
    finally:
        await server.storage.close()


@asynccontextmanager
async def working(server: Server, answer: Answerer) -> AsyncIterator[BatchWorker]:
    """Its worker."""
    worker = BatchWorker(server, answer)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.close()


async def submit(server: Server, content: bytes, **changes: Any) -> StoredBatch:
    """Store a file and a batch over it."""
    writer = await server.storage.files.writer("anonymous")
    await writer.write(content)
    file = await writer.finish("in.jsonl", "batch")
    request = {
        "owner": "anonymous", "caller": "anonymous", "endpoint": ENDPOINT, "input_file_id": file.id,
        "completion_window": "24h", "expires_after_s": 86_400.0,
    }  # fmt: skip
    return await server.storage.batches.create(BatchRequest(**{**request, **changes}))


async def ended(server: Server, batch: StoredBatch) -> StoredBatch:
    """The batch when it has ended."""
    while True:
        found = await server.storage.batches.get("anonymous", batch.id)
        assert found is not None
        if found.status not in LIVE:
            return found
        await asyncio.sleep(0.01)


async def rows_of(server: Server, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file."""
    if file_id is None:
        return []
    file = await server.storage.files.get("anonymous", file_id)
    assert file is not None
    content = b"".join([piece async for piece in server.storage.files.read(file)])
    return [json.loads(each) for each in content.splitlines()]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is about to happen."""
    while not condition():
        await asyncio.sleep(0.005)
