"""short-m@k: launch k answers, stop when m of them have finished, vote among these (arXiv:2505.17813).

Meant for reasoning models. Which m are the first does not depend on the machine: fewest tokens, then launch order.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar

from ramify.backends.base import Capability
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.stopping.race import STRIDE, Runner, by_launch, check_race, finishers, first_of
from ramify.strategies.votes import vote


@strategy("short-m", kind="approximate", paper="arXiv:2505.17813")
@dataclass(frozen=True)
class ShortM(Method):
    """Majority vote among the first m of k answers to finish; the others are dropped. For reasoning models.

    Equal votes go to the answer with the shortest trace. An answer that cannot be read is not one of the m.

    Attributes:
        k: answers to launch.
        m: answers to wait for, k at most.
        stride: tokens that each draws between two looks at who has finished.
    """

    size: ClassVar[str] = "k"
    k: int = 8
    m: int = 3
    stride: int = STRIDE

    def __post_init__(self) -> None:
        check_race(self.k, self.stride)
        if not 1 <= self.m <= self.k:
            raise ConfigError(f"m={self.m} does not work: wait for 1 to k={self.k} answers")

    @property
    def requires(self) -> frozenset[Capability]:
        """Going on from a prefix: branches race in strides."""
        return frozenset({Capability.CONTINUE})

    async def run(self, problem: Problem, context: Context) -> Result:
        """Race until m are in, then vote."""
        over: list[Runner] = []
        voters: list[Runner] = []
        async with aclosing(finishers(context, self.k, self.stride)) as race:
            async for runner in race:
                over.append(runner)
                if runner.finished and context.answer(runner.node) is not None:
                    voters.append(runner)
                    context.report(*by_launch(over, shortest_majority(voters, context)))
                if len(voters) == self.m:
                    break
        best = shortest_majority(voters, context) or first_of(over, context)
        return context.result(*by_launch(over, best))


def shortest_majority(voters: list[Runner], context: Context) -> Runner | None:
    """The shortest trace of the answer most of them give; they come shortest first, so the first of equals is it."""
    winner = vote([context.answer(runner.node) for runner in voters])
    return None if winner is None else voters[winner]
