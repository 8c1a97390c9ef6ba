"""First finish search: launch n answers, take the first to finish and stop the others (arXiv:2505.18149).

Meant for reasoning models, whose shorter traces are more often right. "First" means fewest tokens, then launch order:
the branches advance side by side, so the result does not depend on the machine.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from ramify.backends.base import Capability
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.stopping.race import STRIDE, Runner, by_launch, check_race, finishers, first_of


@strategy("first-finish", kind="approximate", paper="arXiv:2505.18149")
@dataclass(frozen=True)
class FirstFinish(Method):
    """The first of n answers to finish; the others are dropped. For reasoning models.

    An answer that cannot be read does not win while another may; if none can be read, the first finished one stands.

    Attributes:
        n: answers to launch.
        stride: tokens that each draws between two looks at who has finished.
    """

    n: int = 4
    stride: int = STRIDE

    def __post_init__(self) -> None:
        check_race(self.n, self.stride)

    @property
    def requires(self) -> frozenset[Capability]:
        """Going on from a prefix: branches race in strides."""
        return frozenset({Capability.CONTINUE})

    async def run(self, problem: Problem, context: Context) -> Result:
        """Race."""
        over: list[Runner] = []
        async with aclosing(finishers(context, self.n, self.stride)) as race:
            async for runner in race:
                over.append(runner)
                if runner.finished and context.answer(runner.node) is not None:
                    return context.result(*by_launch(over, runner))
        return context.result(*by_launch(over, first_of(over, context)))
