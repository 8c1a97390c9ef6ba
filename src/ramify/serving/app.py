"""The ASGI application: the routes over a `Server`, and what every request passes through before it meets one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.routing import Route

from ramify.serving.api import (
    batches,
    chat,
    completions,
    embeddings,
    files,
    health,
    kv,
    metrics,
    models,
    page,
    responses,
    scores,
    strategies,
    tokenize,
    traces,
)
from ramify.serving.document import install_document
from ramify.serving.edge import Edge, SecurityHeaders, cors_options, public_rules
from ramify.serving.errors import install_error_handlers
from ramify.serving.observing import Observing
from ramify.serving.server import Server

ROUTERS = (
    health.router,
    metrics.router,
    models.router,
    strategies.router,
    chat.router,
    completions.router,
    responses.router,
    embeddings.router,
    scores.router,
    tokenize.router,
    files.router,
    batches.router,
    traces.router,
    kv.router,
    page.router,
)
PATHS = frozenset(route.path for router in ROUTERS for route in router.routes if isinstance(route, Route))
"""As declared, with the names of their variables."""


def create_app(server: Server) -> FastAPI:
    """The application of a server, which starts and ends with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await server.start()
        try:
            yield
        finally:
            await server.close()

    app = FastAPI(title="ramify", version=version("ramify"), lifespan=lifespan, redoc_url=None, redirect_slashes=False)
    app.state.server = server
    install_error_handlers(app, ROUTERS)
    app.add_middleware(Edge, rules=public_rules(server))  # each one added is around those before
    if server.config.allowed_origins:
        app.add_middleware(CORSMiddleware, **cors_options(server.config))
    app.add_middleware(Observing, server=server, paths=PATHS)
    app.add_middleware(SecurityHeaders)
    for router in ROUTERS:
        app.include_router(router)
    install_document(app)
    return app
