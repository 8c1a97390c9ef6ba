"""`BatchWorker`: takes batches up, this server's and those that a killed one left, and sweeps the storage."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ramify.serving.batches.holder import holder_name, is_gone
from ramify.serving.batches.lines import Answer
from ramify.serving.batches.run import BatchRun
from ramify.serving.storage.batches import LeaseLost

if TYPE_CHECKING:
    from ramify.serving.server import Server

_log = logging.getLogger(__name__)
BATCHES_AT_ONCE = 16
LOOK_S = 5.0
"""How often other servers' batches are looked for; this server's own are taken up at once."""
SWEEP_S = 60.0
PAUSE_S = 10.0
"""A batch whose run failed rests so long."""


class BatchWorker:
    """Works on batches as long as the server runs.

    Args:
        server: answers the lines; `config.batch_concurrency` of them at once.
        answer: how a line is answered.
    """

    def __init__(self, server: Server, answer: Answer) -> None:
        self._server = server
        self._answer = answer
        self._slots = asyncio.Semaphore(server.config.batch_concurrency)
        self._news = asyncio.Event()
        self._runs: dict[asyncio.Task[None], BatchRun] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(self._take_up(), name="batches"),
            asyncio.create_task(self._sweep(), name="sweeper"),
        ]

    async def close(self) -> None:
        """Stop: what is finished is stored, leases are given back, another server (or this one, later) goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for run in self._runs.values():
            run.leave()
        if self._runs:
            _, late = await asyncio.wait(self._runs, timeout=LOOK_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def look(self) -> None:
        """There is a new batch, or one was cancelled."""
        self._news.set()
        for run in self._runs.values():
            run.look()

    async def _take_up(self) -> None:
        while True:
            try:
                while not self._server.draining.begun and await self._claim():
                    pass
            except Exception as error:
                _log.error("batches cannot be taken up: %s", error, exc_info=error)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()

    async def _claim(self) -> bool:
        """Take a batch up, first of owners that have none running; False if there is none to take."""
        if len(self._runs) >= BATCHES_AT_ONCE:
            return False
        batches, holder = self._server.storage.batches, holder_name()
        busy = {run.batch.request.owner for run in self._runs.values()}
        batch = await batches.claim(holder, is_gone, busy) if busy else None
        if batch is None:
            batch = await batches.claim(holder, is_gone)
        if batch is None:
            return False
        run = BatchRun(self._server, self._answer, self._slots, holder, batch)
        task = asyncio.create_task(self._run(run, holder), name=batch.id)
        self._runs[task] = run
        task.add_done_callback(self._ended)
        return True

    async def _run(self, run: BatchRun, holder: str) -> None:
        try:
            await run.run()
        except LeaseLost as error:
            _log.warning("%s", error)
        except Exception as error:
            _log.error("%s rests for %g s: %s", run.batch.id, PAUSE_S, error, exc_info=error)
            await self._server.storage.batches.release(run.batch, holder, PAUSE_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s: its lease was not given back and will expire: %s", run.batch.id, error)
        self._news.set()

    async def _sweep(self) -> None:
        while True:
            try:
                swept = await self._server.storage.sweep()
                if swept:
                    _log.debug("swept %d records", swept)
            except Exception as error:
                _log.error("the storage cannot be swept: %s", error, exc_info=error)
            await asyncio.sleep(SWEEP_S)
