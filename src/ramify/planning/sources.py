"""Where the samples of an allocation come from: a stored pool, or a backend. Both give the same samples for a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from ramify.backends.base import Backend, Node
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring.equivalence import Equivalence
from ramify.scoring.logprob import mean_logprob
from ramify.scoring.problem import Problem


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample of a problem.

    Attributes:
        answer: its key; None if none can be read.
        solved: whether a check accepts it; None where nothing can be checked.
        tokens: what it cost.
        merit: breaks ties between answers as in self-consistency: the sample's mean log-probability where known.
        text: what was drawn; empty for a stored sample.
    """

    answer: Hashable | None
    solved: bool | None
    tokens: int
    merit: float = 0.0
    text: str = ""

    def within(self, limit: int) -> Draw:
        """What is left of it when it may cost no more than `limit` tokens: a cut sample answers nothing."""
        return self if self.tokens <= limit else Draw(None, None if self.solved is None else False, limit)


class Source(Protocol):
    """Draws samples of some problems, which it names by their places from 0."""

    def __len__(self) -> int:
        """How many problems there are."""
        ...

    def left(self, place: int) -> bool:
        """Whether the problem has another sample."""
        ...

    async def draw(self, places: Sequence[int], limit: int) -> list[Draw]:
        """The next sample of each of these problems (each named once), of at most `limit` tokens each."""
        ...


class Stored:
    """Samples that were drawn before.

    Args:
        samples: those of each problem, in the order in which they are to come.
    """

    def __init__(self, samples: Sequence[Sequence[Draw]]) -> None:
        self._samples = samples
        self._used = [0] * len(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def left(self, place: int) -> bool:
        """Whether the pool has another sample of the problem."""
        return self._used[place] < len(self._samples[place])

    async def draw(self, places: Sequence[int], limit: int) -> list[Draw]:
        """The next stored samples."""
        drawn = [self._samples[place][self._used[place]].within(limit) for place in places]
        for place in places:
            self._used[place] += 1
        return drawn


class Live:
    """Samples as a backend draws them: sample i of a problem has the key that strategies and pools give it.

    Use it as an asynchronous context manager, which gives back what the prompts hold.

    Args:
        backend: draws; those of one call run in one batch.
        problems: their ids must differ.
        params: how to draw; its `max_tokens` still holds. With `logprobs` (0 is enough) likelier answers win ties.
        equivalence: reads answers.
        check: whether a text solves a problem, where that can be checked.
        seed: of the draws.
    """

    def __init__(
        self,
        backend: Backend,
        problems: Sequence[Problem],
        params: SamplingParams,
        equivalence: Equivalence,
        check: Callable[[str, Problem], bool] | None = None,
        seed: int = 0,
    ) -> None:
        if len({problem.id for problem in problems}) < len(problems):
            raise ConfigError("two problems have the same id: their samples could not be told apart")
        self._backend, self._problems, self._params = backend, problems, params
        self._equivalence, self._check, self._seed = equivalence, check, seed
        self._roots: dict[int, Node] = {}
        self._used = [0] * len(problems)

    async def __aenter__(self) -> Live:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._backend.release(list(self._roots.values()))
        self._roots.clear()

    def __len__(self) -> int:
        return len(self._problems)

    def left(self, place: int) -> bool:
        """Always: a model never runs out of samples."""
        return True

    async def draw(self, places: Sequence[int], limit: int) -> list[Draw]:
        """Draw together; a failure of one cancels the others and is raised."""
        tasks = [asyncio.ensure_future(self._one(place, limit)) for place in places]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, place: int, limit: int) -> Draw:
        problem = self._problems[place]
        if place not in self._roots:
            key = BranchKey.root(self._seed, f"{problem.task}/{problem.id}")
            self._roots[place] = await self._backend.root(problem.prompt, key)
        index, self._used[place] = self._used[place], self._used[place] + 1
        most = limit if self._params.max_tokens is None else min(limit, self._params.max_tokens)
        params = self._params.with_(n=1, max_tokens=most)
        async with aclosing(self._backend.extend(self._roots[place], params, 1, index)) as arriving:
            [node] = [node async for node in arriving]
        self._backend.release([node])
        if node.finish_reason != "stop" and node.num_tokens >= limit:
            return Draw(None, None if self._check is None else False, node.num_tokens, text=node.text)
        whole = node.text if node.finish_reason == "stop" else node.text.rpartition("\n")[0]
        solved = None if self._check is None else self._check(whole, problem)
        merit = mean_logprob(node) if node.token_logprobs is not None else 0.0
        return Draw(self._equivalence.key(whole, problem), solved, node.num_tokens, merit, node.text)
