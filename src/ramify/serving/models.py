"""The models of a server: found by public name, loaded when they are needed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from ramify.backends.local import LocalBackend, Served
from ramify.config import EngineConfig
from ramify.engine.async_engine import AsyncEngine
from ramify.engine.async_llm import AsyncLLM
from ramify.engine.engine import Engine
from ramify.engine.loading import ModelToLoad, load_engines
from ramify.engine.stats import EngineStats
from ramify.models.hub import BUNDLED
from ramify.models.reward_head import RewardHead
from ramify.serving.auth import Caller
from ramify.serving.config import ServerConfig
from ramify.serving.errors import ApiError
from ramify.text.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """One model that is ready.

    Attributes:
        name: as clients call it.
        llm: engine with text in front; streams, cancels.
        created_s: when it was configured, Unix time.
    """

    name: str
    llm: AsyncLLM
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


class Models:
    """All models of a server."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._ready: dict[str, ServedModel] = {}

    async def start(self) -> None:
        """Load what is served from the start."""
        for name, source in self._config.models.items():
            self._ready[name] = ServedModel(name, AsyncLLM(source, **self._config.engine))

    async def close(self) -> None:
        """End all requests and engines."""
        for model in self._ready.values():
            await model.llm.close()

    def names(self) -> list[str]:
        """Public names, the default first."""
        return list(self._config.models)

    def stats(self) -> dict[str, EngineStats]:
        """Counters of the engines that run now, by public name."""
        return {name: model.engine.stats() for name, model in self._ready.items()}

    def states(self) -> dict[str, str]:
        """Of each model that is served, by public name: "ready", "starting", "idle" (unloaded) or "failed"."""
        return {name: "ready" if name in self._ready else "starting" for name in self.names()}

    @asynccontextmanager
    async def use(self, name: str, caller: Caller) -> AsyncIterator[ServedModel]:
        """A model, ready, that is not unloaded meanwhile.

        Raises:
            ApiError: 404, there is no such model; 403, the caller may not use it.
        """
        caller.check_model(name)
        if name not in self._ready:
            known = ", ".join(self.names())
            raise ApiError(
                404, f"there is no model {name!r} here (there are: {known})", param="model", code="model_not_found"
            )
        yield self._ready[name]

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
        """
        async with AsyncExitStack() as stack:
            main = await stack.enter_async_context(self.use(name, caller))
            helpers = {each: await self._helper(each, caller, RewardHead()) for each in rewards}
            others = {each: await self._helper(each, caller) for each in models}
            backend = LocalBackend.sharing(
                Served(main.engine, main.tokenizer), helpers, others, priority=priority, cache_salt=cache_salt
            )
            yield await stack.enter_async_context(backend)

    async def _helper(self, name: str, caller: Caller, reward: RewardHead | None = None) -> Served:
        if name not in self._ready and name in BUNDLED:
            core, folder = load_engines([ModelToLoad(name, reward)], EngineConfig.from_options(self._config.engine))[0]
            self._ready[name] = ServedModel(name, AsyncLLM.over(AsyncEngine(core), load_tokenizer(folder)))
        async with self.use(name, caller) as model:
            return Served(model.engine, model.tokenizer)
