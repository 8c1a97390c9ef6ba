"""One engine process for all tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from ramify.backends.local import Served
from ramify.config import EngineConfig
from ramify.engine.remote.client import RemoteEngine
from ramify.text.tokenizer import load_tokenizer
from tests.engine.harness import checkpoint

OPTIONS = EngineConfig(num_kv_blocks=60, max_num_seqs=16, max_num_batched_tokens=64, num_threads=1)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def remote() -> AsyncIterator[Served]:
    """A small model in a process of its own."""
    engine = await RemoteEngine.start(checkpoint("llama2"), OPTIONS)
    yield Served(engine, load_tokenizer(engine.folder))
    await engine.close()
