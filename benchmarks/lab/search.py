"""A branching search: the same beam search over ramify's forks, and over a peer where a branch is a new request.

On a peer each branch is a request with its whole prefix, as it would be over the peer's API, with the peer's prefix
cache on; the strategy runs in the peer's process, so that it pays for no transport. The scorer reads nothing but the
tokens, so that the time is the engine's; which branches are kept differs with the tokens drawn, how many does not.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.lab.engines.base import Engine, MissingError, Request
from benchmarks.lab.engines.hf_engine import HFEngine
from benchmarks.lab.engines.ramify_engine import RamifyEngine
from benchmarks.lab.workloads import random_ids
from ramify.backends.base import Backend, Capability, FloatArray, Node, StepEnd, StepScores, Usage
from ramify.errors import CapabilityError
from ramify.randomness import BranchKey
from ramify.sampling import Prompt, SamplingParams, TokenIds
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch
from ramify.strategies import solve
from ramify.strategies.search.beam import Beam
from ramify.strategies.steps import StepSplitter


@dataclass(frozen=True, slots=True)
class SearchSize:
    """How large the search is.

    Attributes:
        prompt: tokens.
        width: paths drawn a level.
        branches: continuations of a kept path.
        step: tokens of a step.
        levels: steps.
    """

    prompt: int = 512
    width: int = 16
    branches: int = 4
    step: int = 16
    levels: int = 6

    @property
    def title(self) -> str:
        """In the table."""
        return f"beam search, {self.width} paths in {self.levels} steps"

    @property
    def tokens(self) -> int:
        """Drawn in all."""
        return self.width * self.step * self.levels


@dataclass(frozen=True, slots=True)
class ByChecksum:
    """A score that depends on the tokens alone."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Token ids."""
        return frozenset({Capability.TOKENS})

    @property
    def range(self) -> tuple[float, float]:
        """A share."""
        return (0.0, 1.0)

    def cost(self, reading: Reading) -> int:
        """No tokens."""
        del reading
        return 0

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One a node."""
        del problem, backend
        sums = [zlib.crc32(np.array(node.tokens, np.int32).tobytes()) for node in nodes]
        return ScoreBatch(np.array(sums, np.float64) / 2**32)


class PeerBackend:
    """An engine under test behind ramify's `Backend` protocol: a branch is a request with its whole prefix."""

    capabilities = frozenset({Capability.CANCEL, Capability.CONTINUE, Capability.TOKENS, Capability.SEED})

    def __init__(self, engine: Engine, max_model_len: int) -> None:
        self.usage = Usage()
        self.max_model_len = max_model_len
        self._engine = engine
        self._drawn: dict[int, list[int]] = {}
        self._waiting: dict[int, asyncio.Future[list[int]]] = {}
        self._pump: asyncio.Task[None] | None = None

    async def root(self, prompt: Prompt, key: BranchKey, usage: Usage | None = None, model: str | None = None) -> Node:
        """The root of a tree over token ids."""
        assert isinstance(prompt, dict)
        return Node(key, prompt_tokens=tuple(prompt["prompt_token_ids"]), model=model, usage=usage or Usage())

    def context_length(self, model: str | None = None) -> int:
        """Of the one model."""
        del model
        return self.max_model_len

    async def extend(
        self, node: Node, params: SamplingParams, n: int = 1, first_child: int = 0, step_end: StepEnd | None = None
    ) -> AsyncGenerator[Node, None]:
        """One request a continuation."""
        limits = [limit for limit in (params.max_tokens, step_end and step_end.max_tokens) if limit]
        keys = [node.key.child(first_child + place) for place in range(n)]
        prefix = (*node.prompt_tokens, *node.tokens)
        waiting = [self._ask(Request(prefix, min(limits), 1, params.temperature, key.low % 2**31)) for key in keys]
        for key, future in zip(keys, waiting, strict=True):
            tokens = await future
            self.usage.generated += len(tokens)
            node.usage.generated += len(tokens)
            yield Node(
                key, node, (*node.tokens, *tokens), prompt_tokens=node.prompt_tokens, usage=node.usage,
                step_end=True, num_new_tokens=len(tokens),
            )  # fmt: skip

    def _ask(self, request: Request) -> asyncio.Future[list[int]]:
        number = self._engine.add(request)[0]
        self._drawn[number] = []
        self._waiting[number] = asyncio.get_running_loop().create_future()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return self._waiting[number]

    async def _run(self) -> None:
        while self._engine.busy():
            await asyncio.sleep(0)  # whoever has more to ask asks before the next step
            for token in self._engine.step():
                self._drawn[token.sequence] += token.tokens
                if token.finished:
                    self._waiting.pop(token.sequence).set_result(self._drawn.pop(token.sequence))

    async def append(self, node: Node, tokens: TokenIds, key: BranchKey, keep: int | None = None) -> Node:
        """Not asked for by this search."""
        raise CapabilityError("this backend appends nothing")

    def free_tokens(self) -> int | None:
        """Unknown."""
        return None

    async def logprobs(self, node: Node, continuations: Sequence[TokenIds]) -> list[FloatArray]:
        """Not offered."""
        raise CapabilityError("this backend scores no texts")

    async def reward(self, nodes: Sequence[Node], model: str) -> list[StepScores]:
        """Not offered."""
        raise CapabilityError("this backend has no reward models")

    def release(self, nodes: Iterable[Node]) -> None:
        """Nothing runs below a node that has been handed out."""

    def encode(self, text: str, model: str | None = None) -> TokenIds:
        """Not asked for by this search."""
        raise CapabilityError("this backend has no tokenizer")


def search(engine: Engine, job: dict[str, Any]) -> dict[str, Any]:
    """Run one search; its seconds and the tokens it drew.

    Raises:
        MissingError: the engine has no prefix cache.
    """
    if isinstance(engine, HFEngine):
        raise MissingError("transformers has no prefix cache across requests")
    size = SearchSize(**job["size"])
    ids = random_ids(size.prompt, job["vocabulary"], 5, job["round"])
    return asyncio.run(_search(engine, size, ids))


async def _search(engine: Engine, size: SearchSize, ids: tuple[int, ...]) -> dict[str, Any]:
    length = size.step * size.levels
    backend: Any = (
        engine.backend() if isinstance(engine, RamifyEngine) else PeerBackend(engine, size.prompt + length + 1)
    )
    method = Beam(
        n=size.width,
        m=size.branches,
        scorer=ByChecksum(),
        until=StepSplitter(max_tokens=size.step),
        iters=size.levels,
        sampling=SamplingParams(temperature=1.0, max_tokens=length + 1, ignore_eos=True),
    )
    problem = Problem("search", {"prompt_token_ids": list(ids)})
    started = time.perf_counter()
    try:
        result = await solve(method, problem, backend)
        seconds = time.perf_counter() - started
    finally:
        if isinstance(engine, RamifyEngine):
            await backend.close()
    return {"seconds": seconds, "tokens": result.ledger.generated}
