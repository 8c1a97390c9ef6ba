"""Progress of a run for clients that watch: its events as they come, a few times a second, in bounded pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from ramify.strategies.kernel.trace import AnyEvent

INTERVAL_S = 0.1
"""Between two pieces: quick enough to watch, slow enough for a search of thousands of nodes."""
MOST_EVENTS = 64
"""Of a piece; what a busy search does besides is counted only. The trace has all of it."""
MOST_CHARACTERS = 200
"""Of a text in an event."""


class Watch:
    """Collects the events of one run."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._num_skipped = 0
        self._news = asyncio.Event()

    def take(self, event: AnyEvent) -> None:
        """An event of the run."""
        if len(self._events) >= MOST_EVENTS:
            self._num_skipped += 1
            return
        self._events.append(event_data(event))
        self._news.set()

    async def pieces(self, run: asyncio.Future[Any]) -> AsyncGenerator[list[dict[str, Any]]]:
        """Events as plain data (see `event_data`) until the run ends, the last ones included."""
        while not run.done():
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait((run, news), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if not run.done():
                await asyncio.wait((run,), timeout=INTERVAL_S)
            piece = self._piece()
            if piece:
                yield piece

    def _piece(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        if self._num_skipped:
            events.append({"type": "skipped", "count": self._num_skipped})
            self._num_skipped = 0
        self._news.clear()
        return events


def event_data(event: AnyEvent) -> dict[str, Any]:
    """An event as plain data: its type in lower case, long texts cut, without token ids."""
    data: dict[str, Any] = msgspec.to_builtins(event)
    data["type"] = data["type"].lower()
    data.pop("token_ids", None)
    for name in ("text", "prompt", "answer"):
        text = data.get(name)
        if isinstance(text, str) and len(text) > MOST_CHARACTERS:
            data[name] = text[:MOST_CHARACTERS] + "..."
    return data
