"""What reads texts and writes none: admitted and timed as generations are, and what it read is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ramify.serving.admission import Work
from ramify.serving.auth import Caller
from ramify.serving.errors import ApiError
from ramify.serving.generation import Call, admitted
from ramify.serving.limits import Limits
from ramify.serving.models import ServedModel
from ramify.serving.protocol.embeddings import ScoringFields
from ramify.serving.server import Server


@dataclass(slots=True)
class Reading:
    """Counts of what is read.

    Attributes:
        priority: for the engine.
        prompt_tokens, cached_tokens: so far.
    """

    priority: int
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def usage(self) -> dict[str, int]:
        """As the API gives them."""
        return {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}


@asynccontextmanager
async def reading(server: Server, model: ServedModel, call: Call, work: Work) -> AsyncIterator[Reading]:
    """Wait for a turn at the engine, and read inside.

    Raises:
        ApiError: 429, it would wait too long; 408 or 504, it was not done in time.
    """
    async with admitted(server, model, call, work) as place:
        counts = Reading(place.engine_priority(call))
        try:
            async with asyncio.timeout(None if place.deadline is None else place.deadline.left_s) as limit:
                yield counts
        except TimeoutError:
            if place.deadline is None or not limit.expired():
                raise
            server.metrics.missed.labels(model.name, place.deadline.whose).inc()
            raise place.deadline.missed() from None
        finally:
            place.record.prompt_tokens += counts.prompt_tokens
            place.record.cached_tokens += counts.cached_tokens
            call.caller.rates.charge(counts.prompt_tokens)


def call_of(body: ScoringFields, caller: Caller, request_id: str) -> Call:
    """What a request carries besides its texts."""
    return Call(request_id, caller, body.priority or 0, body.cache_salt or "", body.timeout)


def check_inputs(name: str, count: int, limits: Limits) -> None:
    """Raises ApiError: 400, a list is longer than the server allows."""
    if count > limits.max_inputs:
        message = f"{name} has {count:,} entries and this server allows {limits.max_inputs:,} at most"
        raise ApiError(400, message, param=name)
