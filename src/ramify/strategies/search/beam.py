"""Step beam search: grow answers step by step, keep the steps a scorer likes best (arXiv:2408.03314)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.search.paths import Select, check_tree, check_vote, choose, distinct, ranked
from ramify.strategies.steps import StepSplitter, lines


@strategy("beam", kind="approximate", paper="arXiv:2408.03314", needs=("scorer",))
@dataclass(frozen=True)
class Beam(Method):
    """Beam search over reasoning steps.

    A level draws n continuations by one step: m from each of the n/m kept paths, all n from the root at first. Finished
    paths are set aside, equal ones counted once, and of the open ones the n/m best are kept. The search ends when n
    distinct paths are finished, when nothing is open, or after `iters` levels.

    Attributes:
        n: paths drawn a level.
        m: continuations of a kept path; n must be a multiple of it.
        scorer: judges a path so far; a process reward model by default.
        until: where a step ends; a line by default.
        lookahead: steps by which an open path is continued greedily before it is judged; what was drawn ahead is thrown
            away (and counted as discarded). 0 judges the path as it stands.
        iters: levels at most.
        select: "best" takes the finished path with the highest score, "vote" lets the scores weigh a vote over the
            distinct finished paths.
    """

    n: int = 16
    m: int = 4
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)
    lookahead: int = 0
    iters: int = 40
    select: Select = "best"

    def __post_init__(self) -> None:
        check_tree(self.n, self.m)
        check_vote(self.select, self.scorer)
        if self.iters < 1 or self.lookahead < 0:
            raise ConfigError(
                f"iters={self.iters}, lookahead={self.lookahead} do not work: at least one level, and no negative steps"
            )

    async def run(self, problem: Problem, context: Context) -> Result:
        """Grow level by level."""
        done: list[Node] = []
        kept = [await context.root()]
        for level in range(self.iters):
            drawn = await context.extend(kept, self.m if level else self.n, self.until, scored_by=self.scorer)
            context.retire(kept)
            paths = distinct([*done, *drawn])
            context.drop(node for node in drawn if node not in paths)
            merits = await self._merits(context, paths)
            done = [node for node in paths if not node.open]
            kept = [paths[i] for i in ranked(paths, merits, self.n // self.m)]
            context.drop(node for node in paths if node.open and node not in kept)
            await self._report(context, [*done, *kept])
            if len(done) >= self.n or not kept:
                break
        return await self._report(context, [*done, *kept])

    async def _merits(self, context: Context, paths: Sequence[Node]) -> FloatArray:
        """What each path is worth: its own score, or with `lookahead` the score of where it leads."""
        going = [node for node in paths if node.open]
        if not self.lookahead or not going:
            return await context.score(paths, self.scorer)
        await self._report(context, paths)  # the budget may end while looking ahead
        ahead = await context.extend(going, 1, self.until, scored_by=self.scorer, temperature=0)
        for _ in range(1, self.lookahead):
            ahead = await context.step(ahead, self.until, scored_by=self.scorer, temperature=0)
        ends = {start.key: end for start, end in zip(going, ahead, strict=False)}  # fewer where the budget ends
        merits = await context.score([ends.get(node.key, node) for node in paths], self.scorer)
        context.drop(ahead)
        return merits

    async def _report(self, context: Context, nodes: Sequence[Node]) -> Result:
        scores = await context.score(nodes, self.scorer)
        return context.result(nodes, choose(context, nodes, scores, self.select), scores=scores)
