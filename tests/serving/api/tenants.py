"""The whole application over a server without engines, as two tenants see it with OpenAI's client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from openai import AsyncOpenAI

from ramify.serving.app import create_app
from ramify.serving.batches import BatchWorker
from ramify.serving.config import ServerConfig
from ramify.serving.server import Server
from tests.serving.batches.helpers import Answerer

KEYS = ("a-key-of-ada-0123456789", "a-key-of-bob-0123456789")


@dataclass(frozen=True)
class Tenants:
    """Two clients of one server, each with a key of its own; lines of batches are answered by a stand-in."""

    server: Server
    ada: AsyncOpenAI
    bob: AsyncOpenAI


@asynccontextmanager
async def tenants(**options: Any) -> AsyncIterator[Tenants]:
    """With these options of the server."""
    server = Server(ServerConfig({"nano": "nano"}, storage_url=":memory:", api_key=KEYS, **options))
    server.batches = BatchWorker(server, Answerer())
    app = create_app(server)
    async with AsyncExitStack() as stack:
        for part in (server.storage, server.keys, server.batches):
            await part.start()
            stack.push_async_callback(part.close)
        clients = []
        for key in KEYS:
            http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
            client = AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key=key, max_retries=0, http_client=http)
            clients.append(await stack.enter_async_context(client))
        yield Tenants(server, *clients)
