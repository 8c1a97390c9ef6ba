"""Traces of runs, stored as their events come: a kill leaves what was written, and a full disk ends no run."""

from __future__ import annotations

import asyncio
import logging

from ramify.errors import RamifyError
from ramify.serving.storage.traces import Traces
from ramify.strategies.kernel.trace import AnyEvent, encode_event

INTERVAL_S = 0.2
"""Between two transactions: each is on the disk before the next begins."""
_log = logging.getLogger(__name__)


class TraceStore:
    """Writes the trace of one run."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self._lines: list[bytes] = []
        self._error: RamifyError | None = None
        self._writer: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._id = ""

    async def begin(self, owner: str, model: str, strategy: str) -> str:
        """Make the trace; gives its id.

        Raises:
            StorageError, QuotaError: it cannot be stored.
        """
        self._id = (await self._traces.create(owner, model, strategy)).id
        self._writer = asyncio.create_task(self._write())
        return self._id

    def take(self, event: AnyEvent) -> None:
        """An event of the run."""
        self._lines.append(encode_event(event))

    async def end(self) -> list[str]:
        """Write what is left; gives remarks for the answer."""
        self._ended.set()
        if self._writer is None:
            return []
        await self._writer
        if self._error is None:
            return []
        return [f"the trace is not whole: {self._error}"]

    async def _write(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    await asyncio.wait_for(self._ended.wait(), INTERVAL_S)
                except TimeoutError:
                    await self._flush()
            await self._flush()
            await self._traces.finish(self._id)
        except RamifyError as error:
            self._error = error
            _log.warning("trace %s could not be stored whole: %s", self._id, error)

    async def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            await self._traces.append(self._id, b"".join(lines))
