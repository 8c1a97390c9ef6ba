"""Diverse verifier tree search: independent subtrees that do not compete, each a greedy walk by a scorer.

It came with the Hugging Face study of test-time compute (2024) and has no paper of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.backends.base import Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.search.paths import Select, check_tree, check_vote, choose, distinct, families
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of


@strategy("dvts", kind="approximate", needs=("scorer",))
@dataclass(frozen=True)
class DVTS(Method):
    """Diverse verifier tree search: n/m subtrees of width 1, each going on from the best of its m children.

    A subtree never loses its place to another one, however much better that scores: this is what keeps the answers
    apart. It ends when its best child is finished; then all m children of that last step are candidates.

    Attributes:
        n: paths drawn a level, over all subtrees.
        m: children of a step; n must be a multiple of it, and n/m is the number of subtrees.
        scorer: judges a path so far; a process reward model by default.
        until: where a step ends; a line by default.
        iters: levels at most.
        select: "best" takes the finished path with the highest score, "vote" lets the scores weigh a vote over the
            distinct finished paths.
    """

    n: int = 16
    m: int = 4
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)
    iters: int = 40
    select: Select = "best"

    def __post_init__(self) -> None:
        check_tree(self.n, self.m)
        check_vote(self.select, self.scorer)
        if self.iters < 1:
            raise ConfigError(f"iters={self.iters} does not work: at least one level is needed")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Walk down all subtrees, level by level."""
        drawn = await context.extend([await context.root()], self.n, self.until, scored_by=self.scorer)
        subtrees = [drawn[start : start + self.m] for start in range(0, len(drawn), self.m)]
        for _ in range(1, self.iters):
            await self._report(context, subtrees)
            heads = [await self._best(context, children) for children in subtrees]
            ended = (children for children, head in zip(subtrees, heads, strict=True) if not head.open)
            context.retire(child for children in ended for child in children)
            going = [i for i, head in enumerate(heads) if head.open]
            if not going:
                break
            context.drop(child for i in going for child in subtrees[i] if child is not heads[i])
            parents = [heads[i] for i in going]
            drawn = await context.extend(parents, self.m, self.until, scored_by=self.scorer)
            context.retire(parents)
            for i, children in zip(going, families(parents, drawn), strict=True):
                subtrees[i] = children
        return await self._report(context, subtrees)

    async def _best(self, context: Context, children: Sequence[Node]) -> Node:
        best = best_of(await context.score(children, self.scorer), range(len(children)))
        assert best is not None
        return children[best]

    async def _report(self, context: Context, subtrees: Sequence[Sequence[Node]]) -> Result:
        pool = distinct([node for children in subtrees for node in children])
        scores = await context.score(pool, self.scorer)
        return context.result(pool, choose(context, pool, scores, self.select), scores=scores)
