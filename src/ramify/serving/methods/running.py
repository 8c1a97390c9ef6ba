"""The methods that run on a server now: each on a thread with an event loop of its own, so that what one computes holds
up no other request. Ending the server waits for their orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ramify.backends.base import Backend
from ramify.backends.cross_loop import CrossLoopBackend
from ramify.scoring.equivalence import Equivalence
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.runtime import solve
from ramify.strategies.kernel.trace import AnyEvent
from ramify.strategies.registry import Strategy

MOST_THREADS = 128
"""Runs at once; they mostly wait for the engine. Further ones wait for a thread."""
Inside = tuple[asyncio.AbstractEventLoop, asyncio.Event]


class RunningMethods:
    """A part of the server."""

    def __init__(self) -> None:
        self._runs: set[asyncio.Task[Any]] = set()
        self._threads = ThreadPoolExecutor(MOST_THREADS, "ramify-method")

    def hold(self, run: asyncio.Task[Any]) -> None:
        """Keep a run until it ends, also when its client has left; its outcome is its own caller's business."""
        self._runs.add(run)
        run.add_done_callback(self._done)

    @property
    def count(self) -> int:
        """Runs that are not over."""
        return len(self._runs)

    async def close(self) -> None:
        """Cancel what still runs; nothing can be run after this."""
        runs = list(self._runs)
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    async def solve(
        self,
        strategy: Strategy,
        problem: Problem,
        backend: Backend,
        *,
        budget: Budget,
        seed: int,
        equivalence: Equivalence,
        listener: Callable[[AnyEvent], None],
        cancel: asyncio.Event,
    ) -> Result:
        """As `runtime.solve`, on a thread; `listener` is called on this loop. A cancelled call ends the run first."""
        loop = asyncio.get_running_loop()
        ready: Future[Inside] = Future()

        def tell(event: AnyEvent) -> None:
            loop.call_soon_threadsafe(listener, event)

        async def inside() -> Result:
            stop = asyncio.Event()
            ready.set_result((asyncio.get_running_loop(), stop))
            return await solve(
                strategy, problem, CrossLoopBackend(backend, loop), budget=budget, seed=seed, equivalence=equivalence,
                listener=tell, cancel=stop,
            )  # fmt: skip

        run = asyncio.wrap_future(self._threads.submit(lambda: asyncio.run(inside())))
        stopping = asyncio.ensure_future(cancel.wait())
        try:
            await asyncio.wait((run, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not run.done():
                there, stop = await asyncio.wrap_future(ready)
                with suppress(RuntimeError):  # its loop has just ended
                    there.call_soon_threadsafe(stop.set)
                await asyncio.wait((run,))
        return run.result()

    def _done(self, run: asyncio.Task[Any]) -> None:
        self._runs.discard(run)
        if not run.cancelled():
            run.exception()  # seen; raised where the outputs are read, unless the client has left
