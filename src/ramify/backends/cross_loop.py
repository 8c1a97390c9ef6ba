"""A backend that lives on another event loop, for methods that run on a thread of their own.

What a method computes between two calls (votes, similarities of all pairs, masks over a vocabulary) then holds up
nobody but itself. Every call is carried over to the backend's loop in the order of the calls, and a call that was
cancelled has ended there too before it returns here, so that counts of tokens are whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from ramify.backends.base import Backend, FloatArray, Node, StepEnd, StepScores, Usage
from ramify.randomness import BranchKey
from ramify.sampling import Prompt, SamplingParams, TokenIds

T = TypeVar("T")


class CrossLoopBackend:
    """The `Backend` of `loop`, as one of whichever loop calls it.

    Args:
        inner: the backend, used on `loop` alone.
        loop: runs in another thread.
    """

    def __init__(self, inner: Backend, loop: asyncio.AbstractEventLoop) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities
        self.usage = inner.usage
        self.max_model_len = inner.max_model_len
        self._loop = loop

    async def root(self, prompt: Prompt, key: BranchKey, usage: Usage | None = None, model: str | None = None) -> Node:
        """See `Backend.root`."""
        return await self._call(lambda: self.inner.root(prompt, key, usage, model))

    def context_length(self, model: str | None = None) -> int:
        """See `Backend.context_length`."""
        return self.inner.context_length(model)

    async def extend(
        self, node: Node, params: SamplingParams, n: int = 1, first_child: int = 0, step_end: StepEnd | None = None
    ) -> AsyncGenerator[Node, None]:
        """See `Backend.extend`."""
        here = asyncio.get_running_loop()
        news: deque[Node] = deque()
        changed = asyncio.Event()

        def hear(each: Node) -> None:
            news.append(each)
            changed.set()

        async def draw() -> None:
            async with aclosing(self.inner.extend(node, params, n, first_child, step_end)) as drawn:
                async for each in drawn:
                    here.call_soon_threadsafe(hear, each)

        drawing = asyncio.ensure_future(self._call(draw))
        drawing.add_done_callback(lambda _: changed.set())
        try:
            while news or not drawing.done():
                while news:
                    yield news.popleft()
                if not drawing.done():
                    changed.clear()
                    await changed.wait()
            drawing.result()
        finally:
            drawing.cancel()
            await asyncio.wait((drawing,))
            self.release(news)  # nobody took them

    async def append(self, node: Node, tokens: TokenIds, key: BranchKey, keep: int | None = None) -> Node:
        """See `Backend.append`."""
        return await self._call(lambda: self.inner.append(node, tokens, key, keep))

    def free_tokens(self) -> int | None:
        """See `Backend.free_tokens`."""
        return self.inner.free_tokens()

    async def logprobs(self, node: Node, continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """See `Backend.logprobs`."""
        return await self._call(lambda: self.inner.logprobs(node, continuations))

    async def reward(self, nodes: Sequence[Node], model: str) -> list[StepScores]:
        """See `Backend.reward`."""
        return await self._call(lambda: self.inner.reward(nodes, model))

    def release(self, nodes: Iterable[Node]) -> None:
        """See `Backend.release`."""
        gone = list(nodes)
        if gone:
            self._loop.call_soon_threadsafe(self.inner.release, gone)

    def encode(self, text: str, model: str | None = None) -> TokenIds:
        """See `Backend.encode`."""
        return self.inner.encode(text, model)

    async def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of a coroutine on the backend's loop; a cancel here ends it there first."""
        here = asyncio.get_running_loop()
        ended: asyncio.Future[asyncio.Task[T]] = here.create_future()
        started: list[asyncio.Task[T]] = []

        def start() -> None:
            task = self._loop.create_task(work())
            started.append(task)
            task.add_done_callback(tell)

        def tell(task: asyncio.Task[T]) -> None:
            with suppress(RuntimeError):  # whoever asked has gone, and its loop with it
                here.call_soon_threadsafe(ended.set_result, task)

        self._loop.call_soon_threadsafe(start)
        try:
            task = await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(lambda: started[0].cancel())
            task = await asyncio.shield(ended)
            if not task.cancelled() and task.exception() is None:
                self._give_back(task.result())
            raise
        return task.result()

    def _give_back(self, made: Any) -> None:
        """Nobody hears of a node that was made while its call was cancelled."""
        if isinstance(made, Node) and made.parent is not None:
            self.release([made])
