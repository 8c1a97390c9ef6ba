"""The models of a server: found by public name, each in an engine process of its own, loaded when they are needed.

Rules: what is in use is never unloaded; whoever waits for a model that is being loaded waits for the one load; what is
idle makes room, least recently used first; a process that dies is replaced, and what ran on it has failed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from ramify.backends.local import LocalBackend, Served
from ramify.backends.rewards import foreign_ids
from ramify.config import EngineConfig
from ramify.engine.async_llm import AsyncLLM
from ramify.engine.engine import Engine
from ramify.engine.remote.client import RemoteEngine
from ramify.engine.stats import EngineStats
from ramify.errors import EngineDiedError, RamifyError
from ramify.models.hub import BUNDLED
from ramify.models.reward_head import RewardHead
from ramify.serving.auth import Caller
from ramify.serving.config import ServerConfig
from ramify.serving.errors import ApiError
from ramify.serving.model_memory import Kind, MemoryPlan, ModelFacts, default_budget_bytes, read_facts
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
class _Slot:
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


class Models:
    """All models of a server.

    Args:
        config: what to serve, and in how much memory.
        launch: starts an engine.
    """

    def __init__(self, config: ServerConfig, launch: Launch = RemoteEngine.start) -> None:
        self._config = config
        self._engine_config = EngineConfig.from_options(config.engine)
        self._launch = launch
        self._slots: dict[str, _Slot] = {}
        self._plan: MemoryPlan | None = None
        self._room = asyncio.Lock()
        self._processes: set[EngineProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Look at all models, and load as many of them as fit together, the default first.

        Raises:
            ModelError, ConfigError: one cannot be used.
        """
        self._slots, plan = await asyncio.to_thread(self._look)
        self._plan = plan
        held, first = 0, []
        for slot in self._slots.values():
            needed = plan.bytes_of(slot.facts)
            if held + needed <= plan.budget_bytes:
                held += needed
                first.append(slot)
        for slot in first:
            slot.bringing_up = self._task(self._bring_up(slot))
        await asyncio.gather(*(slot.bringing_up for slot in first if slot.bringing_up is not None))

    def _look(self) -> tuple[dict[str, _Slot], MemoryPlan]:
        engine = self._engine_config
        slots = {name: _Slot(name, read_facts(source, engine)) for name, source in self._config.models.items()}
        gib = self._config.model_memory_gib
        budget = default_budget_bytes(engine) if gib is None else int(gib * 2**30)
        return slots, MemoryPlan(budget, [slot.facts for slot in slots.values()], engine)

    async def close(self) -> None:
        """End all requests and engines."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in self._processes))

    def names(self) -> list[str]:
        """Public names, the default first."""
        return list(self._config.models)

    def facts(self, name: str, caller: Caller) -> tuple[ModelFacts, int]:
        """What is known of a model, loaded or not, and when it was configured (Unix time). Raises as `use`."""
        slot = self._slot(name, caller)
        return slot.facts, slot.created_s

    def stats(self) -> dict[str, EngineStats]:
        """Counters of the engines that run now, by public name."""
        return {name: slot.model.engine.stats() for name, slot in self._slots.items() if slot.model is not None}

    def restarts(self) -> dict[str, int]:
        """How often an engine died and was replaced, by public name."""
        return {name: slot.restarts for name, slot in self._slots.items()}

    def states(self) -> dict[str, State]:
        """Of each model that is served, by public name."""
        return {name: self._slots[name].state if name in self._slots else "starting" for name in self.names()}

    def describe(self) -> dict[str, dict[str, Any]]:
        """For the administrator: state, kind, users and memory of each model, and why it failed if it did."""
        return {
            name: {
                "state": slot.state,
                "kind": slot.facts.kind,
                "users": slot.users,
                "bytes": slot.bytes,
                "pid": getattr(slot.process, "pid", None),
                "restarts": slot.restarts,
                "error": slot.why_failed,
            }
            for name, slot in self._slots.items()
        }

    @asynccontextmanager
    async def use(self, name: str, caller: Caller) -> AsyncIterator[ServedModel]:
        """A model, ready, that is not unloaded meanwhile.

        Raises:
            ApiError: 404, there is no such model; 403, the caller may not use it; 503, it cannot be loaded now.
        """
        async with self._held(self._slot(name, caller)) as model:
            yield model

    @asynccontextmanager
    async def backend(
        self,
        name: str,
        caller: Caller,
        *,
        rewards: Sequence[str] = (),
        models: Sequence[str] = (),
        priority: int = 0,
        cache_salt: str = "",
    ) -> AsyncIterator[LocalBackend]:
        """What an inference-time method runs on: a model with the reward models and other models that it needs.

        Args:
            name: of the main model.
            caller: who asks.
            rewards, models: public names, or bundled models.
            priority, cache_salt: of all requests; see `LocalBackend.sharing`.

        Raises:
            ApiError: as for `use`.
            RequestError: a reward model is none.
        """
        async with AsyncExitStack() as stack:
            main = await stack.enter_async_context(self.use(name, caller))
            helpers: dict[str, Served] = {}
            for each in dict.fromkeys((*rewards, *models)):
                slot = await self._helper(each, caller, reward=each in rewards)
                held = await stack.enter_async_context(self._held(slot))
                helpers[each] = Served(held.engine, held.tokenizer)
                if each in rewards:
                    await asyncio.to_thread(foreign_ids, held.tokenizer, main.tokenizer)
            backend = LocalBackend.sharing(
                Served(main.engine, main.tokenizer),
                {each: helpers[each] for each in rewards},
                {each: helpers[each] for each in models},
                priority=priority,
                cache_salt=cache_salt,
            )
            yield await stack.enter_async_context(backend)

    async def load(self, name: str) -> None:
        """Make a model ready now, also one that has failed.

        Raises:
            ApiError: as for `use`.
        """
        slot = self._slot(name)
        slot.deaths.clear()
        slot.failed_s = 0.0
        async with self._held(slot):
            pass

    async def unload(self, name: str) -> None:
        """End a model's engine.

        Raises:
            ApiError: 404, there is no such model; 409, it is in use.
        """
        slot = self._slot(name)
        async with self._room:
            if slot.users or (slot.bringing_up is not None and not slot.bringing_up.done()):
                raise ApiError(409, f"model {name!r} is in use: wait until it is idle", code="model_in_use")
            await self._end(slot)

    async def abort(self, request_id: str) -> bool:
        """End what runs for a request, in whichever model; says whether there was anything."""
        ready = [slot.model for slot in self._slots.values() if slot.model is not None]
        return any([await model.llm.abort_all(request_id) for model in ready])

    async def forget_prefixes(self) -> None:
        """Empty the prefix caches of all models."""
        for slot in self._slots.values():
            if slot.model is not None:
                await slot.model.engine.forget_prefixes()

    # Who is meant

    def _slot(self, name: str, caller: Caller | None = None) -> _Slot:
        if caller is not None:
            caller.check_model(name)
        if name not in self._config.models or name not in self._slots:
            known = ", ".join(each for each in self.names() if caller is None or caller.may_use(each))
            raise ApiError(
                404,
                f"there is no model {name[:200]!r} here (there are: {known})",
                param="model",
                code="model_not_found",
            )
        return self._slots[name]

    async def _helper(self, name: str, caller: Caller, reward: bool) -> _Slot:
        """A model that a method needs: one that is served, or a bundled one, which anybody may use for that."""
        if name in self._config.models or name not in BUNDLED:
            return self._slot(name, caller)
        if name not in self._slots:
            facts = await asyncio.to_thread(read_facts, name, self._engine_config)
            self._slots.setdefault(name, _Slot(name, facts, RewardHead() if reward else None))
        return self._slots[name]

    # Loading

    @asynccontextmanager
    async def _held(self, slot: _Slot) -> AsyncIterator[ServedModel]:
        slot.users += 1
        try:
            yield await self._ready(slot)
        finally:
            slot.users -= 1
            slot.last_used_s = time.monotonic()

    async def _ready(self, slot: _Slot) -> ServedModel:
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

    async def _bring_up(self, slot: _Slot) -> None:
        """Load a model. What goes wrong makes it "failed" and stands in the log; room that is lacking is told."""
        slot.state = "restarting" if slot.state == "restarting" else "starting"
        began_s = time.monotonic()
        try:
            await self._make_room(slot)
            blocks = self._the_plan.num_blocks(slot.facts)
            engine_config = replace(self._engine_config, num_kv_blocks=blocks)
            slot.process = await self._launch(str(slot.facts.folder), engine_config, slot.reward)
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

    def _on_death(self, slot: _Slot, process: EngineProcess, died: asyncio.Future[EngineDiedError]) -> None:
        """A process has died by itself: another one is started in its place; not too often."""
        if slot.process is process and not died.cancelled():
            slot.state, slot.model = "starting", None
            slot.bringing_up = self._task(self._revive(slot, died.result()))

    async def _revive(self, slot: _Slot, error: EngineDiedError) -> None:
        await self._end(slot)
        slot.state = "starting"
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

    async def _make_room(self, slot: _Slot) -> None:
        """Reserve a model's memory; idle models go, least recently used first.

        Raises:
            ApiError: 503, what is in use leaves no room.
            ConfigError: it can never fit.
        """
        needed = self._the_plan.bytes_of(slot.facts)
        async with self._room:
            while True:
                held = sum(each.bytes for each in self._slots.values())
                if held + needed <= self._the_plan.budget_bytes:
                    slot.bytes = needed
                    return
                idle = [each for each in self._slots.values() if each.state == "ready" and not each.users]
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

    async def _end(self, slot: _Slot) -> None:
        """Nothing of a model's engine is left."""
        process, slot.process, slot.model = slot.process, None, None
        slot.state = "idle"
        if process is not None:
            await process.close()
            self._processes.discard(process)
        slot.bytes = 0

    def _failed(self, slot: _Slot, why: str) -> None:
        _log.error("model %s failed: %s", slot.name, why)
        slot.state, slot.why_failed, slot.failed_s = "failed", why, time.monotonic()

    def _unavailable(self, slot: _Slot) -> ApiError:
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
