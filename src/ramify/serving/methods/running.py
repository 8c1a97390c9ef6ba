"""The methods that run on a server now, so that ending it waits for their orderly end."""

from __future__ import annotations

import asyncio
from typing import Any


class RunningMethods:
    """A part of the server."""

    def __init__(self) -> None:
        self._runs: set[asyncio.Task[Any]] = set()

    def hold(self, run: asyncio.Task[Any]) -> None:
        """Keep a run until it ends, also when its client has left; its outcome is its own caller's business."""
        self._runs.add(run)
        run.add_done_callback(self._done)

    async def close(self) -> None:
        """Cancel what still runs."""
        runs = list(self._runs)
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    def _done(self, run: asyncio.Task[Any]) -> None:
        self._runs.discard(run)
        if not run.cancelled():
            run.exception()  # seen; raised where the outputs are read, unless the client has left
