"""`AsyncEngine`: an `EngineCore` on a thread of its own, with asyncio in front.

The core is only ever touched between two steps: calls that come while a step runs are queued and carried out, in
order, before the next one. So a dropped sequence's blocks are back before the next step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ramify.engine.core import EngineCore
from ramify.engine.request import EngineRequest, SequenceOutput
from ramify.errors import EngineError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds

Listener = Callable[[SequenceOutput], None]
"""Called on the event loop with each output of one sequence; must not block."""
T = TypeVar("T")
_log = logging.getLogger(__name__)

_SETTLING_TURNS = 5
"""Turns of the event loop between steps: whoever waited for a branch gets to ask for its next one in time for the
next batch (a waiter behind a gather needs three)."""


class AsyncEngine:
    """Drives a core while there is work. Use it from one event loop.

    Args:
        core: not touched by anybody else from now on.
    """

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ramify-engine")
        self._listeners: dict[int, Listener] = {}
        self._commands: list[Callable[[], None]] = []
        self._stepping = False
        self._driver: asyncio.Task[None] | None = None

    async def add(self, request: EngineRequest, listener: Listener) -> list[int]:
        """Take a request on; `listener` hears of all its sequences.

        Raises:
            RequestError: it cannot be served.
        """

        def add() -> list[int]:
            ids = self.core.add(request)
            self._listeners.update(dict.fromkeys(ids, listener))
            return ids

        return await self._between_steps(add)

    async def fork_and_extend(
        self, sequence_id: int, key: BranchKey, n: int, first_child: int, params: SamplingParams, listener: Listener
    ) -> list[int]:
        """Fork a parked sequence `n` times and let the forks run on."""

        def fork() -> list[int]:
            ids = self.core.fork(sequence_id, key, n, first_child)
            try:
                for child in ids:
                    self.core.extend(child, params)
            except BaseException:
                self.core.drop(ids)
                raise
            self._listeners.update(dict.fromkeys(ids, listener))
            return ids

        return await self._between_steps(fork)

    def finish(self, sequence_id: int, num_tokens: int | None = None) -> None:
        """End a sequence before the next step (see `EngineCore.finish`)."""
        self._soon(lambda: self.core.finish(sequence_id, num_tokens))

    def drop(self, sequence_ids: Collection[int]) -> None:
        """Forget sequences; nothing is heard of them any more and their blocks are free before the next step."""
        ids = list(sequence_ids)
        for sequence_id in ids:
            self._listeners.pop(sequence_id, None)
        self._soon(lambda: self.core.drop(ids))

    async def tokens(self, sequence_id: int) -> TokenIds:
        """All tokens of a living sequence."""
        return await self._between_steps(lambda: self.core.tokens(sequence_id))

    async def close(self) -> None:
        """Drop everything and end the thread."""
        self.drop(list(self._listeners))
        if self._driver is not None:
            await self._driver
        self._thread.shutdown()

    async def _between_steps(self, call: Callable[[], T]) -> T:
        if not self._stepping:
            result = call()
            self._wake()
            return result
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def carry_out() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(call())
            except Exception as error:
                done.set_exception(error)

        self._commands.append(carry_out)
        return await done

    def _soon(self, call: Callable[[], None]) -> None:
        if self._stepping:
            self._commands.append(call)
        else:
            call()

    def _wake(self) -> None:
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        while self.core.has_work():
            self._stepping = True
            try:
                outputs = (await loop.run_in_executor(self._thread, self.core.step)).outputs
            except Exception as fault:
                _log.exception("the engine failed")
                outputs = self._failures(fault)
            self._stepping = False
            commands, self._commands = self._commands, []
            for command in commands:
                command()
            for output in outputs:
                listener = self._listeners.get(output.sequence_id)
                if output.finish_reason is not None:
                    self._listeners.pop(output.sequence_id, None)
                if listener is not None:
                    listener(output)
            for _ in range(_SETTLING_TURNS):
                await asyncio.sleep(0)

    def _failures(self, fault: Exception) -> list[SequenceOutput]:
        """The step itself failed, outside of any one request: all that run fail, and the engine goes on empty."""
        ids = list(self._listeners)
        error = EngineError(f"the engine failed: {type(fault).__name__}: {fault}")
        error.__cause__ = fault
        self._commands.append(lambda: self.core.drop(ids))
        return [SequenceOutput(sequence_id, finish_reason="error", error=error) for sequence_id in ids]
