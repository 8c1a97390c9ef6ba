"""Plain sampling: one answer. At temperature 0 it is greedy decoding. What every other method is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy


@strategy("sample", kind="lossless")
@dataclass(frozen=True)
class Sample(Method):
    """One answer, drawn from the model's own law."""

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw it."""
        answers = await context.extend([await context.root()])
        return context.result(answers, best=0)
