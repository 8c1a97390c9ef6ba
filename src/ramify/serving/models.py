"""The models of a server, found by public name; each has an engine process of its own (see `model_loader`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from ramify.backends.local import LocalBackend, Served
from ramify.backends.rewards import foreign_ids
from ramify.config import EngineConfig
from ramify.engine.remote.client import RemoteEngine
from ramify.engine.stats import EngineStats
from ramify.models.hub import BUNDLED
from ramify.models.reward_head import RewardHead
from ramify.serving.auth import Caller
from ramify.serving.config import ServerConfig
from ramify.serving.errors import ApiError
from ramify.serving.model_loader import Launch, ModelLoader, Slot, State
from ramify.serving.model_loader import ServedModel as ServedModel
from ramify.serving.model_memory import MemoryPlan, ModelFacts, default_budget_bytes, read_facts


class Models:
    """All models of a server.

    Args:
        config: what to serve, and in how much memory.
        launch: starts an engine.
    """

    def __init__(self, config: ServerConfig, launch: Launch = RemoteEngine.start) -> None:
        self._config = config
        self._engine_config = EngineConfig.from_options(config.engine)
        self._loader = ModelLoader(launch, self._engine_config)

    async def start(self) -> None:
        """Look at all models, and load as many of them as fit together, the default first.

        Raises:
            ModelError, ConfigError: one cannot be used.
        """
        await self._loader.start(*await asyncio.to_thread(self._look))

    def _look(self) -> tuple[dict[str, Slot], MemoryPlan]:
        engine = self._engine_config
        slots = {name: Slot(name, read_facts(source, engine)) for name, source in self._config.models.items()}
        gib = self._config.model_memory_gib
        budget = default_budget_bytes(engine) if gib is None else int(gib * 2**30)
        return slots, MemoryPlan(budget, [slot.facts for slot in slots.values()], engine)

    async def close(self) -> None:
        """End all requests and engines."""
        await self._loader.close()

    def names(self) -> list[str]:
        """Public names, the default first."""
        return list(self._config.models)

    def facts(self, name: str, caller: Caller) -> tuple[ModelFacts, int]:
        """What is known of a model, loaded or not, and when it was configured (Unix time). Raises as `use`."""
        slot = self._slot(name, caller)
        return slot.facts, slot.created_s

    def stats(self) -> dict[str, EngineStats]:
        """Counters of the engines that run now, by public name."""
        return {name: slot.model.engine.stats() for name, slot in self._loader.slots.items() if slot.model is not None}

    def restarts(self) -> dict[str, int]:
        """How often an engine died and was replaced, by public name."""
        return {name: slot.restarts for name, slot in self._loader.slots.items()}

    def states(self) -> dict[str, State]:
        """Of each model that is served, by public name."""
        return {
            name: self._loader.slots[name].state if name in self._loader.slots else "starting" for name in self.names()
        }

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
            for name, slot in self._loader.slots.items()
        }

    @asynccontextmanager
    async def use(self, name: str, caller: Caller) -> AsyncIterator[ServedModel]:
        """A model, ready, that is not unloaded meanwhile.

        Raises:
            ApiError: 404, there is no such model; 403, the caller may not use it; 503, it cannot be loaded now.
        """
        async with self._loader.held(self._slot(name, caller)) as model:
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
                held = await stack.enter_async_context(self._loader.held(slot))
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
        async with self._loader.held(slot):
            pass

    async def unload(self, name: str) -> None:
        """End a model's engine.

        Raises:
            ApiError: 404, there is no such model; 409, it is in use.
        """
        await self._loader.unload(self._slot(name))

    async def abort(self, request_id: str) -> bool:
        """End what runs for a request, in whichever model; says whether there was anything."""
        ready = [slot.model for slot in self._loader.slots.values() if slot.model is not None]
        return any([await model.llm.abort_all(request_id) for model in ready])

    async def forget_prefixes(self) -> None:
        """Empty the prefix caches of all models."""
        for slot in self._loader.slots.values():
            if slot.model is not None:
                await slot.model.engine.forget_prefixes()

    # Who is meant

    def _slot(self, name: str, caller: Caller | None = None) -> Slot:
        if caller is not None:
            caller.check_model(name)
        if name not in self._config.models or name not in self._loader.slots:
            known = ", ".join(each for each in self.names() if caller is None or caller.may_use(each))
            raise ApiError(
                404,
                f"there is no model {name[:200]!r} here (there are: {known})",
                param="model",
                code="model_not_found",
            )
        return self._loader.slots[name]

    async def _helper(self, name: str, caller: Caller, reward: bool) -> Slot:
        """A model that a method needs: one that is served, or a bundled one, which anybody may use for that."""
        if name in self._config.models or name not in BUNDLED:
            return self._slot(name, caller)
        if name not in self._loader.slots:
            facts = await asyncio.to_thread(read_facts, name, self._engine_config)
            self._loader.slots.setdefault(name, Slot(name, facts, RewardHead() if reward else None))
        return self._loader.slots[name]
