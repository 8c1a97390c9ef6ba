"""`Storage`: everything of a server that outlives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ramify.serving.storage.batches import Batches
from ramify.serving.storage.database import Database, storage_url
from ramify.serving.storage.files import Files
from ramify.serving.storage.keys import Keys
from ramify.serving.storage.limits import StorageLimits
from ramify.serving.storage.responses import Responses
from ramify.serving.storage.tenants import stored_bytes
from ramify.serving.storage.traces import Traces


class Storage:
    """The parts of a storage, on one database. An async context manager. What a method stored is on the disk.

    Args:
        url: "" (a file in the user's state folder), a path, ":memory:" or "postgresql://...".
        limits: how much is kept for how long.
        clock: Unix time in seconds.

    Attributes:
        clock: as given.
        files, batches, responses, traces, keys: records by owner.

    Raises:
        ConfigError: the URL names no database that can be used.
    """

    def __init__(
        self, url: str = "", limits: StorageLimits | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.limits = limits or StorageLimits()
        self.clock = clock
        self._database = Database(storage_url(url))
        self.files = Files(self._database, self.limits, clock)
        self.batches = Batches(self._database, clock)
        self.responses = Responses(self._database, self.limits, clock)
        self.traces = Traces(self._database, self.limits, clock)
        self.keys = Keys(self._database, clock)

    def watch(self, observe: Callable[[str, float], None]) -> None:
        """Tell `observe` of every transaction: "read" or "write", and its seconds."""
        self._database.observe = observe

    async def start(self) -> None:
        """Connect; make the tables if there are none.

        Raises:
            StorageError: the database cannot be reached or used.
        """
        await self._database.start()

    async def close(self) -> None:
        """Finish what runs and disconnect."""
        await self._database.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def stored_bytes(self, owner: str) -> int:
        """Bytes that an owner's files, responses and traces take."""
        return await self._database.read(lambda session: stored_bytes(session, owner))

    async def sweep(self) -> int:
        """Delete what has expired or was left behind, in short transactions; gives how many records."""
        total = 0
        for part in (self.files, self.batches, self.responses, self.traces):
            while swept := await part.sweep():
                total += swept
        return total
