"""Reward balanced search: at each depth the width is shared out by the softmax of the rewards (arXiv:2408.00724)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.resampling import softmax
from ramify.strategies.search.paths import Select, check_vote, choose, distinct, families
from ramify.strategies.steps import StepSplitter, lines


@strategy("rebase", kind="approximate", paper="arXiv:2408.00724", needs=("scorer",))
@dataclass(frozen=True)
class Rebase(Method):
    """Reward balanced search: every step so far is continued as often as its reward deserves.

    There are n paths at every depth. A finished one holds its place for good; the places of the open ones are shared
    out anew: path j gets ``softmax(reward / tau)_j`` of them, in whole numbers that sum exactly (largest remainder). A
    path with a share of none is dropped.

    Attributes:
        n: paths at every depth, and finished answers at the end.
        scorer: rewards a path so far; a process reward model by default.
        tau: temperature of the shares: near 0 the best path gets all, large ones share equally.
        until: where a step ends; a line by default.
        iters: depths at most.
        select: "vote" lets the final scores weigh a vote over the distinct finished paths, "best" takes the highest.
    """

    n: int = 16
    scorer: Scorer = field(default_factory=ProcessReward)
    tau: float = 0.2
    until: StepSplitter = field(default_factory=lines)
    iters: int = 40
    select: Select = "vote"

    def __post_init__(self) -> None:
        check_vote(self.select, self.scorer)
        if self.n < 1 or self.iters < 1:
            raise ConfigError(f"n={self.n}, iters={self.iters} do not work: both must be at least 1")
        if self.tau <= 0:
            raise ConfigError(f"tau={self.tau} does not work: it must be above 0")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Go deeper, each time with the width shared out anew."""
        paths = await context.extend([await context.root()], self.n, self.until, scored_by=self.scorer)
        for _ in range(1, self.iters):
            rewards = await context.score(paths, self.scorer)
            await self._report(context, paths)
            places = [i for i, node in enumerate(paths) if node.open]
            if not places:
                break
            going = [paths[i] for i in places]
            shares = share_out(softmax(rewards[places] / self.tau), len(places))
            context.drop(node for node, share in zip(going, shares, strict=True) if share == 0)
            parents = [node for node, share in zip(going, shares, strict=True) if share]
            drawn = await context.extend(parents, [share for share in shares if share], self.until, self.scorer)
            context.retire(parents)
            below = dict(zip((node.key for node in parents), families(parents, drawn), strict=True))
            paths = [after for node in paths for after in ([node] if not node.open else below.get(node.key, []))]
        return await self._report(context, paths)

    async def _report(self, context: Context, nodes: list[Node]) -> Result:
        paths = distinct(nodes)
        scores = await context.score(paths, self.scorer)
        return context.result(paths, choose(context, paths, scores, self.select), scores=scores)


def share_out(shares: FloatArray, places: int) -> list[int]:
    """Whole numbers near ``shares * places`` that sum to `places`; what rounding leaves goes to the largest remainders.

    Equal remainders are served in order. Shares sum to 1.
    """
    wanted = shares * places
    whole = [math.floor(value + 1e-9) for value in wanted]  # 1e-9: exactly k places must not lose one to rounding
    by_remainder = np.argsort(-np.round(wanted - whole, 9), kind="stable")
    for i in by_remainder[: places - sum(whole)]:
        whole[i] += 1
    return whole
