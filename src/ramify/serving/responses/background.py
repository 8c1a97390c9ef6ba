"""`BackgroundRun`: a response that goes on without its client; its events can be read by whoever comes later."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from ramify.serving.responses.builder import Event
from ramify.serving.responses.store import INTERRUPTED, ResponseStore
from ramify.serving.responses.turn import Turn, encoded, events_of, failed

if TYPE_CHECKING:
    from ramify.serving.server import Server


class BackgroundRun:
    """One response in the background.

    Args:
        server: that it runs on.
        store: where it is kept.
        turn: what is answered.

    Attributes:
        turn: as given.
    """

    def __init__(self, server: Server, store: ResponseStore, turn: Turn) -> None:
        self.turn = turn
        self._server = server
        self._store = store
        self._events: list[bytes] = []
        self._changed = asyncio.Condition()
        self._stored = asyncio.Lock()
        self._ended = self._ending = False
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self._ended

    async def start(self) -> None:
        """Store it and begin. Raises QuotaError, StorageError: it cannot be stored."""
        await self.save()
        await self._tell(self.turn.builder.queue())
        # A context of its own: what is measured of the request that started it has ended.
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())

    async def save(self) -> None:
        """Store how it stands, unless its end is stored already."""
        async with self._stored:
            if not self._ended:
                await self._put()

    async def stop(self, *, forget: bool = False, interrupted: bool = False) -> None:
        """End it; what is there stays.

        Args:
            forget: do not store its end.
            interrupted: the server ends, rather than the client's wish.
        """
        if self._task is None:
            return
        if not self._ending:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._ending:  # it was quicker
            return
        if interrupted:
            events = self.turn.builder.fail("server_error", INTERRUPTED)
        else:
            self.turn.builder.cancel()
            events = []
        await self._end(events, forget)

    async def follow(self, after: int | None = None) -> AsyncGenerator[bytes]:
        """Its events, from the first (or behind a sequence number) to its end. Leaving changes nothing for it."""
        place = 0 if after is None else after + 1
        while True:
            async with self._changed:
                while len(self._events) <= place and not self._ended:
                    await self._changed.wait()
            news = self._events[place:]
            if news:
                place += len(news)
                yield b"".join(news)
            elif self._ended:
                return

    async def _run(self) -> None:
        try:
            with self._server.draining.request():
                await self._tell(self.turn.builder.start())
                async with aclosing(events_of(self._server, self.turn)) as news:
                    async for events in news:
                        await self._tell(events)
        except Exception as error:
            events = failed(self.turn, error)
        else:
            events = self.turn.builder.finish()
        await self._end(events, forget=False)

    async def _end(self, events: list[Event], forget: bool) -> None:
        """Store the end, then tell of it."""
        self._ending = True
        async with self._stored:
            try:
                if not forget:
                    await self._put()
            except Exception as error:
                events = failed(self.turn, error)
            async with self._changed:
                self._ended = True
                self._append(events)

    async def _put(self) -> None:
        self.turn.record.response = self.turn.builder.snapshot()
        await self._store.put(self.turn.caller.owner, self.turn.record)

    async def _tell(self, events: list[Event]) -> None:
        async with self._changed:
            self._append(events)

    def _append(self, events: list[Event]) -> None:
        self._events += [encoded([event]) for event in events]
        self._changed.notify_all()
