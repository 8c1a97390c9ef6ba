"""The run: every session starts at its own time, whether or not the server keeps up, and the server is watched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from ramify.errors import ConfigError
from ramify.serving.bench.client import Measured, Target, send
from ramify.serving.bench.plan import Session

if TYPE_CHECKING:
    import httpx2

_WATCH_S = 0.5
_GAUGES = {
    "vllm:kv_cache_usage_perc": "kv_usage",
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
}
_SAMPLE_WORDS = "river stone garden window paper silver morning engine " * 8


@dataclass(frozen=True, slots=True)
class Moment:
    """What the server's metrics said at a time, in seconds after the start; sums over its models."""

    at_s: float
    kv_usage: float = 0.0
    running: float = 0.0
    waiting: float = 0.0


@dataclass(slots=True)
class Load:
    """A run that has ended.

    Attributes:
        requests: in the order in which they were intended.
        started_s: of `time.perf_counter`; the plan's times count from here.
        duration_s: from the start to the end of the last answer.
        moments: the server's own state over time; empty if it has no metrics that are known.
    """

    requests: list[Measured] = field(default_factory=list)
    started_s: float = 0.0
    duration_s: float = 0.0
    moments: list[Moment] = field(default_factory=list)


async def drive(
    client: httpx2.AsyncClient,
    target: Target,
    sessions: Sequence[Session],
    max_concurrency: int | None = None,
    on_request: Callable[[Measured], None] | None = None,
) -> Load:
    """Send all sessions.

    Args:
        max_concurrency: requests in flight at once; more of them wait here, and their wait counts in their latencies.
        on_request: called as each request ends.
    """
    load = Load(started_s=time.perf_counter())
    gate = asyncio.Semaphore(max_concurrency) if max_concurrency else None

    async def run(session: Session) -> None:
        said: list[str] = []
        intended_s = load.started_s + session.at_s
        for number, turn in enumerate(session.turns):
            await asyncio.sleep(intended_s - time.perf_counter())
            said.append(turn.text)
            if gate is None:
                measured = await send(client, target, said, turn.max_tokens, intended_s, number)
            else:
                async with gate:
                    measured = await send(client, target, said, turn.max_tokens, intended_s, number)
            load.requests.append(measured)
            if on_request is not None:
                on_request(measured)
            if not measured.ok or measured.ended_s is None or number + 1 == len(session.turns):
                return
            said.append(measured.text)
            intended_s = measured.ended_s + session.turns[number + 1].think_s

    watcher = asyncio.create_task(_watch(client, load))
    try:
        await asyncio.gather(*(run(session) for session in sessions))
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    load.requests.sort(key=lambda each: each.intended_s)
    load.duration_s = max([each.ended_s or each.intended_s for each in load.requests]) - load.started_s
    return load


async def tokens_per_word(client: httpx2.AsyncClient, target: Target) -> float:
    """How many tokens of the server's model a word of our prompts takes, by its own count of two prompts.

    Raises:
        ConfigError: it cannot be asked, or does not count tokens.
    """
    counts = []
    for text in (_SAMPLE_WORDS.strip(), (_SAMPLE_WORDS * 2).strip()):
        measured = await send(client, target, [text], 1, time.perf_counter())
        if not measured.ok:
            raise ConfigError(f"{client.base_url} does not answer a first request: {measured.error}")
        counts.append(measured.prompt_tokens)
    if counts[1] <= counts[0]:
        raise ConfigError(
            f"{client.base_url} does not say how many tokens a prompt has (usage in streams): give --tokens-per-word"
        )
    return (counts[1] - counts[0]) / len(_SAMPLE_WORDS.split())


async def _watch(client: httpx2.AsyncClient, load: Load) -> None:
    """Read the server's metrics until cancelled; a server without them is not watched."""
    import httpx2

    while True:
        try:
            response = await client.get("/metrics")
        except httpx2.HTTPError:
            return
        if response.status_code != 200:
            return
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(response.text):
            if name := _GAUGES.get(family.name):
                values[name] = sum(sample.value for sample in family.samples)
        if values:
            load.moments.append(Moment(time.perf_counter() - load.started_s, **values))
        await asyncio.sleep(_WATCH_S)
