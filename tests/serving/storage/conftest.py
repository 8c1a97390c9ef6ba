"""A storage on each database, with a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ramify.serving.storage import Storage, StorageLimits


@dataclass
class Clock:
    """Unix time as a test says."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "folder" / "server.db")
    make: Callable[[], str] = request.getfixturevalue("new_postgres")
    return make()


@pytest.fixture
async def storage(url: str, clock: Clock) -> AsyncIterator[Storage]:
    limits = StorageLimits(quota_bytes=4_000_000, response_retention_s=100, trace_retention_s=100)
    async with Storage(url, limits, clock) as made:
        yield made
