"""`Server`: what the routes may reach. One object for the life of the process; nothing of it is global."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ramify.serving.auth import Caller, the_caller
from ramify.serving.config import ServerConfig
from ramify.serving.models import Models


class Server:
    """The parts of a running server, made and ended together.

    Attributes:
        config: its options.
        models: what it serves.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.models = Models(config)

    async def start(self) -> None:
        """Make everything ready."""
        await self.models.start()

    async def close(self) -> None:
        """End everything."""
        await self.models.close()


def _the_server(request: Request) -> Server:
    server: Server = request.app.state.server
    return server


TheServer = Annotated[Server, Depends(_the_server)]
"""Type of a route's parameter that is the server."""
TheCaller = Annotated[Caller, Depends(the_caller)]
"""Type of a route's parameter that is whoever called."""
