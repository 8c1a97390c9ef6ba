"""The one way from a route to an engine: every generation of every endpoint is admitted and counted here."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ramify.engine.outputs import RequestOutput
from ramify.randomness import BranchKey
from ramify.sampling import Prompt, SamplingParams
from ramify.serving.auth import Caller
from ramify.serving.models import ServedModel
from ramify.serving.server import Server


@dataclass(frozen=True, slots=True)
class Call:
    """What a generation carries besides its prompt and its parameters.

    Attributes:
        request_id: of the HTTP request or the batch's line.
        caller: who asks.
        priority: lower runs first under the priority policy.
        cache_salt: the client's own, on top of its key's.
        timeout_s: the answer is of no use after so many seconds.
        key, first_child: name the branch that the draws belong to; of the seed by default.
    """

    request_id: str
    caller: Caller
    priority: int = 0
    cache_salt: str = ""
    timeout_s: float | None = None
    key: BranchKey | None = None
    first_child: int = 0

    @property
    def salt(self) -> str:
        """The prefix cache's salt: of the key and of the client together."""
        if not (self.caller.cache_salt or self.cache_salt):
            return ""
        return hashlib.sha256(f"{self.caller.cache_salt}\n{self.cache_salt}".encode()).hexdigest()


async def generate(
    server: Server, model: ServedModel, prompt: Prompt, params: SamplingParams, call: Call
) -> AsyncIterator[RequestOutput]:
    """Stream a request of a model: each item is the same `RequestOutput`, further on. Leaving the loop cancels it.

    Raises:
        RequestError: it cannot be served.
        EngineError: it failed while it ran.
    """
    stream = model.llm.generate(
        prompt,
        params,
        call.request_id,
        priority=call.priority,
        cache_salt=call.salt,
        key=call.key,
        first_child=call.first_child,
    )
    async for output in stream:
        yield output
