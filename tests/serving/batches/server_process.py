"""Servers in processes of their own that a test kills, forked from one that has imported everything."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from ramify.config import EngineConfig
from ramify.engine.async_engine import AsyncEngine
from ramify.engine.loading import load_engine
from ramify.errors import RamifyError
from ramify.models.reward_head import RewardHead
from ramify.serving.app import create_app
from ramify.serving.batches import BatchWorker
from ramify.serving.config import ServerConfig
from ramify.serving.models import Models
from ramify.serving.server import Server
from tests.serving.batches.helpers import Answerer
from tests.serving.conftest import serving_app

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])
_FOREVER_S = 600.0
Main = Callable[[str, Connection], None]


@contextmanager
def started(main: Main, storage_url: str) -> Iterator[tuple[BaseProcess, str]]:
    """A server's process, killed at the latest at the end, and what it said when it was ready."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=main, args=(storage_url, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours.recv()
    finally:
        process.kill()
        process.join()
        ours.close()


def serve(storage_url: str, ready: Connection) -> None:
    """The whole server; its engine is in its own process here, and so dies with it. Says its URL."""
    _quiet()
    config = ServerConfig({"nano": "nano"}, storage_url=storage_url, batch_concurrency=8)
    server = Server(config)
    server.models = Models(config, _engine_in_this_process)

    async def run() -> None:
        async with serving_app(create_app(server)) as url:
            ready.send(url)
            await asyncio.sleep(_FOREVER_S)

    asyncio.run(run())


def work(storage_url: str, ready: Connection) -> None:
    """Storage and worker alone; lines are answered by a stand-in, each after a moment."""
    _quiet()

    async def moment(prompt: str) -> None:
        await asyncio.sleep(random.random() * 0.02)

    async def run() -> None:
        server = Server(ServerConfig({"nano": "nano"}, storage_url=storage_url, batch_concurrency=32))
        await server.storage.start()
        await BatchWorker(server, Answerer(moment)).start()
        ready.send("ready")
        await asyncio.sleep(_FOREVER_S)

    asyncio.run(run())


class _Engine(AsyncEngine):
    """An engine as the server's models want one."""

    died: asyncio.Future[RamifyError]
    folder: Path


async def _engine_in_this_process(model: str, config: EngineConfig, reward: RewardHead | None) -> _Engine:
    core, folder = load_engine(model, config)
    engine = _Engine(core)
    engine.died, engine.folder = asyncio.get_running_loop().create_future(), folder
    return engine


def _quiet() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
