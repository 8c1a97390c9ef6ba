"""`Server`: what the routes may reach. One object for the life of the process; nothing of it is global."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ramify.serving.auth import Caller, the_caller
from ramify.serving.config import ServerConfig
from ramify.serving.models import Models
from ramify.serving.storage import Storage, StorageLimits
from ramify.serving.storage.limits import DAY_S


class Server:
    """The parts of a running server, made and ended together.

    Attributes:
        config: its options.
        models: what it serves.
        storage: files, batches, responses, traces and keys.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.models = Models(config)
        self.storage = Storage(config.storage_url or "", _storage_limits(config))

    async def start(self) -> None:
        """Make everything ready."""
        await self.storage.start()
        await self.models.start()

    async def close(self) -> None:
        """End everything."""
        await self.models.close()
        await self.storage.close()


def _storage_limits(config: ServerConfig) -> StorageLimits:
    return StorageLimits(
        config.storage_quota_bytes,
        file_retention_s=config.file_retention_days * DAY_S,
        response_retention_s=config.response_retention_days * DAY_S,
        trace_retention_s=config.trace_retention_days * DAY_S,
    )


def _the_server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


TheServer = Annotated[Server, Depends(_the_server)]
"""Type of a route's parameter that is the server."""
TheCaller = Annotated[Caller, Depends(the_caller)]
"""Type of a route's parameter that is whoever called."""
