"""The models of a server: found by public name, loaded when they are needed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ramify.engine.async_llm import AsyncLLM
from ramify.serving.config import ServerConfig
from ramify.serving.errors import ApiError


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
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self.llm.engine.core.max_model_len


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

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[ServedModel]:
        """A model, ready, that is not unloaded meanwhile.

        Raises:
            ApiError: 404, there is no such model.
        """
        if name not in self._ready:
            known = ", ".join(self.names())
            raise ApiError(
                404, f"there is no model {name!r} here (there are: {known})", param="model", code="model_not_found"
            )
        yield self._ready[name]
