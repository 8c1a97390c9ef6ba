"""`Draining`: how a server ends without cutting anybody off: nothing new comes in, and what runs may finish."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ramify.serving.errors import ApiError


class Draining:
    """Counts requests, and closes the door.

    Attributes:
        started: set when draining begins; what works in the background stops at its next border.
    """

    def __init__(self, timeout_s: float) -> None:
        self.started = asyncio.Event()
        self._timeout_s = timeout_s
        self._ends_at_s = 0.0
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def begun(self) -> bool:
        """Whether new requests are turned away."""
        return self.started.is_set()

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return self._running

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request that is waited for.

        Raises:
            ApiError: 503, the server is ending.
        """
        if self.begun:
            raise self._turned_away()
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def begin(self) -> None:
        """Turn new requests away from now on."""
        if not self.begun:
            self._ends_at_s = time.monotonic() + self._timeout_s
            self.started.set()

    async def drain(self) -> bool:
        """Turn new requests away, and wait for those that run, for as long as they may take.

        Returns:
            Whether all of them ended.
        """
        self.begin()
        if not self._running:
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), max(0.0, self._ends_at_s - time.monotonic()))
        except TimeoutError:
            return False
        return True

    def _turned_away(self) -> ApiError:
        left_s = max(1, math.ceil(self._ends_at_s - time.monotonic()))
        return ApiError(
            503,
            f"the server is ending and takes no new requests: send it to another one, or here again in {left_s} s",
            code="draining",
            headers={"retry-after": str(left_s), "connection": "close"},
        )
