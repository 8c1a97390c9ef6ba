"""The ASGI application: the routes over a `Server`, and what every request passes through before it meets one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from ramify.serving.api import models
from ramify.serving.errors import install_error_handlers
from ramify.serving.server import Server

ROUTERS = (models.router,)


def create_app(server: Server) -> FastAPI:
    """The application of a server, which starts and ends with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await server.start()
        try:
            yield
        finally:
            await server.close()

    app = FastAPI(title="ramify", version=version("ramify"), lifespan=lifespan)
    app.state.server = server
    install_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
