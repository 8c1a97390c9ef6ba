"""`ModelLoader`: brings models up when they are asked for, makes room for them, and replaces those that die.

Rules: what is in use is never unloaded; whoever waits for a model that is being loaded waits for the one load; what is
idle makes room, least recently used first; a process that dies is replaced, and what ran on it has failed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from ramify.config import EngineConfig
from ramify.engine.async_llm import AsyncLLM
from ramify.engine.engine import Engine
from ramify.errors import EngineDiedError, RamifyError
from ramify.models.reward_head import RewardHead
from ramify.serving.errors import ApiError
from ramify.serving.model_memory import Kind, MemoryPlan, ModelFacts
from ramify.text.tokenizer import Tokenizer, load_tokenizer

State = Literal["idle", "starting", "ready", "restarting", "failed"]
"""Restarting: its engine died, and another one is started."""
MAX_DEATHS = 5
"""So many within `DEATHS_WITHIN_S`, and a model counts as failed."""
DEATHS_WITHIN_S = 60.0
FIRST_WAIT_S = 0.5
"""Before the second restart in a row; twice as long before each further one."""
TRY_AGAIN_AFTER_S = 30.0
"""A model that failed is tried again when it is asked for, so long after."""
_log = logging.getLogger(__name__)


class EngineProcess(Engine, Protocol):
    """An engine that can die by itself; see `RemoteEngine`."""

    died: asyncio.Future[EngineDiedError]
    folder: Path


Launch = Callable[[str, EngineConfig, RewardHead | None], Awaitable[EngineProcess]]


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """One model that is ready.

    Attributes:
        name: as clients call it.
        llm: engine with text in front; streams, cancels.
        kind: what it is good for.
        created_s: when it was configured, Unix time.
    """

    name: str
    llm: AsyncLLM
    kind: Kind = "generate"
    created_s: int = field(default_factory=lambda: int(time.time()))

    @property
    def engine(self) -> Engine:
        """What runs it."""
        return self.llm.engine

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, with its chat template."""
        return self.llm.tokenizer

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self.engine.max_model_len


@dataclass(slots=True, eq=False)
class Slot:
    """A model, loaded or not.

    Attributes:
        facts: what is known of it before it is loaded.
        reward: set if it is wanted for its scores.
        users: who holds it or waits for it.
        bringing_up: the one load, while it goes on.
        process: the engine, from its start to its end; `bytes` are held by it.
        deaths, restarts: when its engine died of late, and how often it did in all.
        why_failed: the last failure, and when.
    """

    name: str
    facts: ModelFacts
    reward: RewardHead | None = None
    created_s: int = field(default_factory=lambda: int(time.time()))
    state: State = "idle"
    model: ServedModel | None = None
    process: EngineProcess | None = None
    bytes: int = 0
    users: int = 0
    last_used_s: float = 0.0
    bringing_up: asyncio.Task[None] | None = None
    deaths: deque[float] = field(default_factory=deque)
    restarts: int = 0
    why_failed: str | None = None
    failed_s: float = 0.0


class ModelLoader:
    """The engines of a server.

    Args:
        launch: starts one.
        engine: options of each; the plan gives the size of its pool.

    Attributes:
        slots: the models that there are; `start` gives them.
    """

    def __init__(self, launch: Launch, engine: EngineConfig) -> None:
        self.launch = launch
        self.slots: dict[str, Slot] = {}
        self._engine = engine
        self._plan: MemoryPlan | None = None
        self._room = asyncio.Lock()
        self._processes: set[EngineProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, slots: dict[str, Slot], plan: MemoryPlan) -> None:
        """Load as many of the models as fit together, the first ones first.

        Raises:
            ModelError, ConfigError: one cannot be used.
        """
        self.slots, self._plan = slots, plan
        held, first = 0, []
        for slot in slots.values():
            needed = plan.bytes_of(slot.facts)
            if held + needed <= plan.budget_bytes:
                held += needed
                slot.bringing_up = self._task(self._bring_up(slot))
                first.append(slot.bringing_up)
        await asyncio.gather(*first)

    async def close(self) -> None:
        """End all engines."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in self._processes))

    async def unload(self, slot: Slot) -> None:
        """End a model's engine.

        Raises:
            ApiError: 409, it is in use.
        """
        async with self._room:
            if slot.users or (slot.bringing_up is not None and not slot.bringing_up.done()):
                raise ApiError(409, f"model {slot.name!r} is in use: wait until it is idle", code="model_in_use")
            await self._end(slot)

    @asynccontextmanager
    async def held(self, slot: Slot) -> AsyncIterator[ServedModel]:
        """A model, ready, that is not unloaded meanwhile. Raises ApiError: 503, it cannot be loaded now."""
        slot.users += 1
        try:
            yield await self._ready(slot)
        finally:
            slot.users -= 1
            slot.last_used_s = time.monotonic()

    async def _ready(self, slot: Slot) -> ServedModel:
        while True:
            if slot.process is not None and slot.process.died.done():
                await asyncio.sleep(0)  # `_on_death` is called next
                continue
            if slot.model is not None:
                return slot.model
            if slot.state == "failed" and time.monotonic() < slot.failed_s + TRY_AGAIN_AFTER_S:
                raise self._unavailable(slot)
            if slot.bringing_up is None or slot.bringing_up.done():
                slot.bringing_up = self._task(self._bring_up(slot))
            await asyncio.wait((slot.bringing_up,))
            if slot.state == "failed":
                raise self._unavailable(slot)
            slot.bringing_up.result()

    async def _bring_up(self, slot: Slot) -> None:
        """Load a model. What goes wrong makes it "failed" and stands in the log; room that is lacking is told."""
        slot.state = "restarting" if slot.state == "restarting" else "starting"
        began_s = time.monotonic()
        try:
            await self._make_room(slot)
            blocks = self._the_plan.num_blocks(slot.facts)
            engine_config = replace(self._engine, num_kv_blocks=blocks)
            slot.process = await self.launch(str(slot.facts.folder), engine_config, slot.reward)
            self._processes.add(slot.process)
            tokenizer = await asyncio.to_thread(load_tokenizer, slot.facts.folder)
        except BaseException as error:
            await self._end(slot)
            if isinstance(error, RamifyError | OSError):
                self._failed(slot, str(error))
            raise
        slot.model = ServedModel(slot.name, AsyncLLM.over(slot.process, tokenizer), slot.facts.kind, slot.created_s)
        slot.state, slot.why_failed = "ready", None
        slot.process.died.add_done_callback(partial(self._on_death, slot, slot.process))
        _log.info("model %s is ready after %.1f s", slot.name, time.monotonic() - began_s)

    def _on_death(self, slot: Slot, process: EngineProcess, died: asyncio.Future[EngineDiedError]) -> None:
        """A process has died by itself: another one is started in its place; not too often."""
        if slot.process is process and not died.cancelled():
            slot.state, slot.model = "restarting", None
            slot.restarts += 1
            slot.bringing_up = self._task(self._revive(slot, died.result()))

    async def _revive(self, slot: Slot, error: EngineDiedError) -> None:
        await self._end(slot, "restarting")
        now = time.monotonic()
        slot.deaths.append(now)
        while slot.deaths[0] < now - DEATHS_WITHIN_S:
            slot.deaths.popleft()
        again = len(slot.deaths) - 1
        if again >= MAX_DEATHS - 1:
            self._failed(slot, f"{error}; this was the {again + 1}th time within {DEATHS_WITHIN_S:.0f} s")
            return
        if again:
            wait_s = FIRST_WAIT_S * 2 ** (again - 1)
            _log.warning("model %s is started again in %.1f s", slot.name, wait_s)
            await asyncio.sleep(wait_s)
        await self._bring_up(slot)

    async def _make_room(self, slot: Slot) -> None:
        """Reserve a model's memory; idle models go, least recently used first.

        Raises:
            ApiError: 503, what is in use leaves no room.
            ConfigError: it can never fit.
        """
        needed = self._the_plan.bytes_of(slot.facts)
        async with self._room:
            while True:
                held = sum(each.bytes for each in self.slots.values())
                if held + needed <= self._the_plan.budget_bytes:
                    slot.bytes = needed
                    return
                idle = [each for each in self.slots.values() if each.state == "ready" and not each.users]
                if not idle:
                    slot.state = "idle"
                    raise ApiError(
                        503,
                        f"model {slot.name!r} has no room while other models are in use: try again",
                        code="no_room_for_model",
                        headers={"retry-after": "5"},
                    )
                oldest = min(idle, key=lambda each: each.last_used_s)
                _log.info("model %s makes room for %s", oldest.name, slot.name)
                await self._end(oldest)

    async def _end(self, slot: Slot, state: State = "idle") -> None:
        """Nothing of a model's engine is left."""
        process, slot.process, slot.model = slot.process, None, None
        slot.state = state
        if process is not None:
            await process.close()
            self._processes.discard(process)
        slot.bytes = 0

    def _failed(self, slot: Slot, why: str) -> None:
        _log.error("model %s failed: %s", slot.name, why)
        slot.state, slot.why_failed, slot.failed_s = "failed", why, time.monotonic()

    def _unavailable(self, slot: Slot) -> ApiError:
        message = f"model {slot.name!r} cannot be used now; the server's log has the reason"
        wait_s = max(1, round(slot.failed_s + TRY_AGAIN_AFTER_S - time.monotonic()))
        return ApiError(503, message, code="model_unavailable", headers={"retry-after": str(wait_s)})

    @property
    def _the_plan(self) -> MemoryPlan:
        assert self._plan is not None
        return self._plan

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that is ended with the server, and whose failure is in the log."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ApiError | RamifyError | OSError):
            _log.error("loading a model failed", exc_info=error)
