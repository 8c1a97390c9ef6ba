"""A method is one file and one registration: here, draw two answers at a time until two agree."""

import asyncio
from dataclasses import dataclass

from ramify.backends.base import Node
from ramify.backends.local import LocalBackend
from ramify.evals.tasks import get_task
from ramify.scoring import Problem
from ramify.strategies import Context, Method, Result, parse_strategy, solve_many, strategy
from ramify.strategies.votes import tally, vote


@strategy("first-to-agree", kind="approximate")
@dataclass(frozen=True)
class FirstToAgree(Method):
    """Answers in pairs until some answer has been given `agree` times.

    Attributes:
        agree: votes that suffice.
        n: answers at most.
    """

    agree: int = 2
    n: int = 8

    async def run(self, problem: Problem, context: Context) -> Result:
        root = await context.root()
        nodes: list[Node] = []
        while len(nodes) < self.n:
            nodes += await context.extend([root], 2)
            answers = [context.answer(node) for node in nodes]
            certain = max(tally(answers).values(), default=0) >= self.agree
            context.report(nodes, vote(answers))
            if certain:
                break
        return context.result(nodes, vote(answers), certain=certain)


async def main() -> None:
    task = get_task("word_problems")
    problems = task.problems(20)
    async with LocalBackend.load("nano") as backend:
        for spec in ("sample:temperature=0", "first-to-agree:agree=2,n=8", "self-consistency:n=8"):
            results = await solve_many(parse_strategy(spec), problems, backend)
            right = sum(task.correct(r.text, p) for r, p in zip(results, problems, strict=True) if r is not None)
            tokens = sum(r.ledger.total_tokens for r in results if r is not None) / len(problems)
            print(f"{spec:28} {right:2} of {len(problems)} right, {tokens:.0f} tokens a problem")


asyncio.run(main())
