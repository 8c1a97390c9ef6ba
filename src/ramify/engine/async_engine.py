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

from ramify.config import EngineConfig
from ramify.engine.core import EngineCore
from ramify.engine.engine import Listener, tell
from ramify.engine.request import EngineRequest, SequenceOutput, TextStart
from ramify.engine.stats import EngineStats
from ramify.errors import EngineError
from ramify.models.config import ModelConfig
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds

T = TypeVar("T")
_log = logging.getLogger(__name__)

_SETTLING_TURNS = 5
"""Turns of the event loop between steps: whoever waited for a branch gets to ask for its next one in time for the
next batch (a waiter behind a gather needs three)."""


class AsyncEngine:
    """Drives a core while there is work. Use it from one event loop.

    Args:
        core: not touched by anybody else from now on.
        thread: where the steps run; engines that share a processor share one, and whoever made it ends it.
    """

    def __init__(self, core: EngineCore, thread: ThreadPoolExecutor | None = None) -> None:
        self.core = core
        self._owns_thread = thread is None
        self._thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="ramify-engine")
        self._listeners: dict[int, Listener] = {}
        self._commands: list[Callable[[], None]] = []
        self._stepping = False
        self._driver: asyncio.Task[None] | None = None

    @property
    def config(self) -> EngineConfig:
        """Its options."""
        return self.core.config

    @property
    def model_config(self) -> ModelConfig:
        """Shape and options of its model."""
        return self.core.model_config

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self.core.max_model_len

    def stats(self) -> EngineStats:
        """What it has done so far and holds now."""
        return self.core.stats()

    async def kv_map(self) -> str:
        """The state of each KV block."""
        return await self._between_steps(self.core.kv_map)

    async def forget_prefixes(self) -> None:
        """Empty the prefix cache."""
        await self._between_steps(self.core.forget_prefixes)

    async def add(self, request: EngineRequest, listener: Listener, text: TextStart | None = None) -> list[int]:
        """Take a request on; `listener` hears of all its sequences, and ends them in time: `text` is not needed.

        Raises:
            RequestError: it cannot be served.
        """

        def add() -> list[int]:
            ids = self.core.add(request)
            self._listeners.update(dict.fromkeys(ids, listener))
            return ids

        return await self._between_steps(add, undo=self.drop)

    async def fork_and_extend(
        self,
        sequence_id: int,
        key: BranchKey,
        n: int,
        first_child: int,
        params: SamplingParams,
        listener: Listener,
        append: TokenIds = (),
        score_positions: tuple[int, ...] = (),
        score_token_ids: tuple[int, ...] = (),
        text: TextStart | None = None,
    ) -> list[int]:
        """Fork a parked sequence `n` times and let the forks run on (see `EngineCore.fork` and `extend`)."""

        def fork() -> list[int]:
            ids = self.core.fork(sequence_id, key, n, first_child)
            try:
                for child in ids:
                    self.core.extend(child, params, append, score_positions, score_token_ids)
            except BaseException:
                self.core.drop(ids)
                raise
            self._listeners.update(dict.fromkeys(ids, listener))
            return ids

        return await self._between_steps(fork, undo=self.drop)

    async def append(self, sequence_id: int, tokens: TokenIds) -> None:
        """Put known tokens behind a parked sequence (see `EngineCore.append`)."""
        await self._between_steps(lambda: self.core.append(sequence_id, tokens))

    def finish(self, sequence_id: int) -> None:
        """End a sequence before the next step (see `EngineCore.finish`)."""
        self._soon(lambda: self.core.finish(sequence_id))

    def drop(self, sequence_ids: Collection[int]) -> None:
        """Forget sequences; their blocks are free before the next step. A step that runs now is still heard of."""
        ids = list(sequence_ids)
        self._soon(lambda: self._forget(ids))

    async def dropped(self, sequence_ids: Collection[int]) -> None:
        """The same; returns when nothing will be heard of them any more."""
        ids = list(sequence_ids)
        await self._between_steps(lambda: self._forget(ids))

    def _forget(self, sequence_ids: list[int]) -> None:
        for sequence_id in sequence_ids:
            self._listeners.pop(sequence_id, None)
        self.core.drop(sequence_ids)

    async def close(self) -> None:
        """Drop everything and end the thread."""
        self.drop(list(self._listeners))
        if self._driver is not None:
            await self._driver
        if self._owns_thread:
            self._thread.shutdown()

    async def _between_steps(self, call: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """Carry out a call while no step runs. `undo` is for a caller that was cancelled while it waited."""
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
        try:
            return await done
        except asyncio.CancelledError:
            if undo is not None and done.done() and not done.cancelled() and done.exception() is None:
                undo(done.result())
            raise

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
                outputs = self._fail_all(fault)
            self._stepping = False
            for output in outputs:
                self._tell(output)
            commands, self._commands = self._commands, []
            for command in commands:
                try:
                    command()
                except Exception as fault:
                    for output in self._fail_all(fault):
                        self._tell(output)
            for _ in range(_SETTLING_TURNS):
                await asyncio.sleep(0)

    def _tell(self, output: SequenceOutput) -> None:
        listener = self._listeners.get(output.sequence_id)
        if output.finish_reason is not None:
            self._listeners.pop(output.sequence_id, None)
        if listener is None:
            return
        tell(listener, output, self._forget)

    def _fail_all(self, fault: Exception) -> list[SequenceOutput]:
        """Something failed outside of any one request: all that run fail with it, and the engine goes on empty."""
        _log.error("the engine failed", exc_info=fault)
        error = EngineError(f"the engine failed: {type(fault).__name__}: {fault}")
        error.__cause__ = fault
        ids = list(self._listeners)
        self.core.drop(ids)
        return [SequenceOutput(sequence_id, finish_reason="error", error=error) for sequence_id in ids]
