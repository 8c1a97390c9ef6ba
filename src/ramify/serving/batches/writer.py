"""`ResultWriter`: finished lines into the storage, all that have finished since the last transaction in the next."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from ramify.errors import StorageError
from ramify.serving.batches.lines import FIRST_PAUSE_S, LONGEST_PAUSE_S
from ramify.serving.storage.batches import Batches, LeaseLost
from ramify.serving.storage.records import LineResult, StoredBatch

_log = logging.getLogger(__name__)
_AT_ONCE = 256


class ResultWriter:
    """Writes the results of one batch. An async context manager; its end waits until everything is stored.

    A storage that fails (a full disk) is tried again for as long as it takes: nothing that was computed is thrown away,
    and as long as it waits no new line starts, because `put` does not return.

    Args:
        batches: the storage.
        batch: whose results.
        holder: its lease.

    Attributes:
        batch: as it stood after the last transaction.
    """

    def __init__(self, batches: Batches, batch: StoredBatch, holder: str) -> None:
        self.batch = batch
        self._batches = batches
        self._holder = holder
        self._waiting: list[tuple[LineResult, asyncio.Future[None]]] = []
        self._news = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write_all(), name=f"results of {self.batch.id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._news.set()
        await self._task

    async def put(self, result: LineResult) -> None:
        """Store a result; it is on the disk when this returns. It is stored also if the caller is cancelled meanwhile.

        Raises:
            LeaseLost: another server works on the batch.
        """
        if self._task.done():
            raise LeaseLost(f"{self.batch.id} was left")
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((result, stored))
        self._news.set()
        await stored

    async def _write_all(self) -> None:
        while self._waiting or not self._closing:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                some, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
                try:
                    await self._write([result for result, _ in some])
                except BaseException as error:
                    self._refuse([future for _, future in some + self._waiting], error)
                    raise
                for _, stored in some:
                    if not stored.done():
                        stored.set_result(None)

    async def _write(self, results: list[LineResult]) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                self.batch = await self._batches.add_results(self.batch, self._holder, results)
                return
            except LeaseLost:
                raise
            except StorageError as error:
                _log.error("%s: %d results wait for the storage: %s", self.batch.id, len(results), error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _refuse(self, futures: list[asyncio.Future[None]], error: BaseException) -> None:
        for stored in futures:
            if not stored.done():
                stored.set_exception(error if isinstance(error, Exception) else LeaseLost("the batch was left"))
                stored.exception()  # whoever waits sees it; whoever was cancelled does not have to
