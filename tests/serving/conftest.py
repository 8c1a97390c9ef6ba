"""A server on loopback for tests: the real application under uvicorn, with the bundled model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import pytest
import uvicorn
from fastapi import FastAPI
from openai import OpenAI

from ramify.serving.app import create_app
from ramify.serving.config import ServerConfig
from ramify.serving.server import Server
from tests.serving.postgres import new_postgres  # noqa: F401 - a fixture of the tests below here


@asynccontextmanager
async def serving(config: ServerConfig) -> AsyncIterator[str]:
    """Serve in this event loop; gives the base URL without a path. It stores in memory unless told otherwise."""
    if not config.storage_url:
        config = replace(config, storage_url=":memory:")
    async with serving_app(create_app(Server(config))) as url:
        yield url


@asynccontextmanager
async def serving_app(app: FastAPI) -> AsyncIterator[str]:
    """The same for an application that is made already."""
    web = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
    task = asyncio.create_task(web.serve())
    while not web.started:
        if task.done():
            await task
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}"
    finally:
        web.should_exit = True
        await task


@contextmanager
def serving_in_thread(config: ServerConfig) -> Iterator[str]:
    """The same on a thread of its own, for synchronous clients."""
    urls: list[str] = []
    errors: list[BaseException] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(config) as url:
            urls.append(url)
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.02)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            errors.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="server under test")
    thread.start()
    ready.wait()
    if errors:
        raise errors[0]
    try:
        yield urls[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """One server with nano for all tests that change nothing in it."""
    with serving_in_thread(ServerConfig({"nano": "nano"}, port=0)) as base:
        yield base


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    """OpenAI's own client on it."""
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made
