"""The `Engine` protocol: a running model for asyncio programs, in this process or in another; and a part of one.

Whoever generates (`AsyncLLM`, the local backend, reward models) needs no more than this, so it never knows where the
model runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Protocol

from ramify.config import EngineConfig
from ramify.engine.request import EngineRequest, SequenceOutput, TextStart
from ramify.engine.stats import EngineStats
from ramify.errors import EngineError
from ramify.models.config import ModelConfig
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams, TokenIds

_log = logging.getLogger(__name__)

Listener = Callable[[SequenceOutput], None]
"""Called on the event loop with each output of one sequence; must not block."""


class Engine(Protocol):
    """Runs sequences, many at a time. Used from one event loop; what is asked is done between two steps, in order."""

    @property
    def config(self) -> EngineConfig:
        """Its options."""
        ...

    @property
    def model_config(self) -> ModelConfig:
        """Shape and options of its model."""
        ...

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        ...

    def stats(self) -> EngineStats:
        """What it has done so far and holds now."""
        ...

    async def kv_map(self) -> str:
        """The state of each KV block between two steps, a letter each.

        "f" is free, "c" free with a cached prefix in it, "h" held by one sequence, "s" shared by several.
        """
        ...

    async def forget_prefixes(self) -> None:
        """Empty the prefix cache: no request to come finds what was computed before."""
        ...

    async def add(self, request: EngineRequest, listener: Listener, text: TextStart | None = None) -> list[int]:
        """Take a request on; `listener` hears of all its sequences.

        Args:
            request: what to run.
            listener: also hears, where the caller is cancelled while it waits, what still runs until that is known.
            text: how the text of the sequences goes on. Whoever follows it finishes them where it ends; an engine that
                hears of that too late sees it by itself. None if nothing but the parameters' limits and ids ends them.

        Returns:
            The ids of its ``params.n`` sequences.

        Raises:
            RequestError: it cannot be served.
            EngineError: the engine is closed or dead.
        """
        ...

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
        ...

    async def append(self, sequence_id: int, tokens: TokenIds) -> None:
        """Put known tokens behind a parked sequence (see `EngineCore.append`)."""
        ...

    def finish(self, sequence_id: int) -> None:
        """End a sequence before the next step: parked if it is to be kept, else forgotten. Unknown ids are ignored."""
        ...

    def drop(self, sequence_ids: Collection[int]) -> None:
        """Forget sequences; their blocks are free before the next step. A step that runs now is still heard of."""
        ...

    async def dropped(self, sequence_ids: Collection[int]) -> None:
        """The same; returns when nothing will be heard of them any more."""
        ...

    async def close(self) -> None:
        """Drop everything and end."""
        ...


def tell(listener: Listener, output: SequenceOutput, drop: Callable[[list[int]], None]) -> None:
    """Hand an output to its listener. If that fails, the sequence is dropped and the listener is told so."""
    try:
        listener(output)
    except Exception as fault:
        _log.exception("what follows sequence %d failed; the sequence is dropped", output.sequence_id)
        drop([output.sequence_id])
        error = EngineError(f"following the sequence failed: {type(fault).__name__}: {fault}")
        error.__cause__ = fault
        listener(SequenceOutput(output.sequence_id, finish_reason="error", error=error))


def settle(done: asyncio.Future[SequenceOutput]) -> Listener:
    """A listener for a sequence with one output: it goes to whoever still awaits `done`."""

    def listen(output: SequenceOutput) -> None:
        if not done.done():
            done.set_result(output)

    return listen


class EngineShare:
    """One user's part of an engine that others use too: closing it ends its own sequences and nothing else.

    Args:
        engine: stays open.
        priority: of its requests; lower runs first under the priority policy.
        cache_salt: its requests share prefixes only with those of the same salt.
    """

    def __init__(self, engine: Engine, priority: int = 0, cache_salt: str = "") -> None:
        self._engine = engine
        self._priority = priority
        self._cache_salt = cache_salt
        self._ids: set[int] = set()
        self._closed = False

    @property
    def config(self) -> EngineConfig:
        """Options of the engine."""
        return self._engine.config

    @property
    def model_config(self) -> ModelConfig:
        """Shape and options of its model."""
        return self._engine.model_config

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self._engine.max_model_len

    def stats(self) -> EngineStats:
        """Of the whole engine."""
        return self._engine.stats()

    async def kv_map(self) -> str:
        """Of the whole engine."""
        return await self._engine.kv_map()

    async def forget_prefixes(self) -> None:
        """Of the whole engine."""
        await self._engine.forget_prefixes()

    async def add(self, request: EngineRequest, listener: Listener, text: TextStart | None = None) -> list[int]:
        """Take a request on, with the priority and the salt of this part."""
        self._check_open()
        own = replace(request, priority=self._priority, cache_salt=self._cache_salt)
        ids = await self._engine.add(own, listener, text)
        return self._taken(ids)

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
        """Fork a parked sequence; the forks inherit its priority and salt."""
        self._check_open()
        ids = await self._engine.fork_and_extend(
            sequence_id, key, n, first_child, params, listener, append, score_positions, score_token_ids, text
        )
        return self._taken(ids)

    async def append(self, sequence_id: int, tokens: TokenIds) -> None:
        """Put known tokens behind a parked sequence."""
        await self._engine.append(sequence_id, tokens)

    def finish(self, sequence_id: int) -> None:
        """End a sequence before the next step."""
        self._engine.finish(sequence_id)

    def drop(self, sequence_ids: Collection[int]) -> None:
        """Forget sequences."""
        self._ids.difference_update(sequence_ids)
        self._engine.drop(sequence_ids)

    async def dropped(self, sequence_ids: Collection[int]) -> None:
        """Forget sequences; returns when nothing will be heard of them any more."""
        self._ids.difference_update(sequence_ids)
        await self._engine.dropped(sequence_ids)

    async def close(self) -> None:
        """Drop the sequences of this part."""
        self._closed = True
        ids, self._ids = self._ids, set()
        await self._engine.dropped(ids)

    def _taken(self, ids: list[int]) -> list[int]:
        if self._closed:
            self._engine.drop(ids)
            self._check_open()
        self._ids.update(ids)
        return ids

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("this part of the engine was closed: open another one")
