"""A server whose engines run in this process: where what is tested is the API, a process a model only costs time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ramify.config import EngineConfig
from ramify.engine.async_engine import AsyncEngine
from ramify.engine.loading import ModelToLoad, load_engines
from ramify.models.reward_head import RewardHead
from ramify.serving.app import create_app
from ramify.serving.config import ServerConfig
from ramify.serving.server import Server
from tests.serving.conftest import serving_app


async def launch_in_process(model: str, config: EngineConfig, reward: RewardHead | None) -> Any:
    core, folder = load_engines([ModelToLoad(model, reward)], config)[0]
    engine: Any = AsyncEngine(core)
    engine.died, engine.folder = asyncio.get_running_loop().create_future(), folder
    return engine


@asynccontextmanager
async def serving_in_process(models: dict[str, str], **options: Any) -> AsyncIterator[tuple[str, Server]]:
    """Its base URL, and itself."""
    server = Server(ServerConfig(models, storage_url=":memory:", **options))
    server.models._loader.launch = launch_in_process
    async with serving_app(create_app(server)) as url:
        yield url, server
