"""Best-of-n: draw n answers, score them, take the best; or let the scores weigh a vote, or draw in their proportion.

Maximum: Cobbe et al., arXiv:2110.14168. Weighted by answer: Li et al., arXiv:2206.02336. Soft: Verdun et al.,
arXiv:2505.03156.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.confidence import details_for
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.resampling import softmax
from ramify.strategies.selection.ballots import ballots_of
from ramify.strategies.selection.weighted_vote import weighted_vote
from ramify.strategies.votes import best_of, finished


@strategy("best-of-n", kind="approximate", paper="arXiv:2110.14168", needs=("scorer",))
@dataclass(frozen=True)
class BestOfN(Method):
    """The best of n independent answers under a scorer. Drawn twice is there twice: each is a vote of its own.

    Attributes:
        n: answers to draw.
        scorer: judges them; a process reward model by default.
        select: "max" takes the highest score; "weighted" the answer whose samples' scores sum highest (needs scores of
            0 or more); "soft" draws one with probability proportional to ``exp(score / tau)``.
        tau: temperature of "soft".
        ties: among equal highest scores, the "first" drawn or a "random" one.
    """

    n: int = 16
    scorer: Scorer = field(default_factory=ProcessReward)
    select: Literal["max", "weighted", "soft"] = "max"
    tau: float = 0.1
    ties: Literal["first", "random"] = "first"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n={self.n} does not work: draw at least one answer")
        if self.tau <= 0:
            raise ConfigError(f"tau={self.tau} does not work: it must be above 0")
        if self.select == "weighted" and self.scorer.range[0] < 0:
            raise ConfigError(
                f"select=weighted needs scores of 0 or more; {type(self.scorer).__name__} gives {self.scorer.range}: "
                "use select=max, or scorer=prm"
            )

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw, score, choose."""
        root = await context.root()
        answers = await context.extend([root], self.n, scored_by=self.scorer, **details_for(self.scorer))
        scores = await context.score(answers, self.scorer)
        return context.result(answers, self._choose(answers, scores, context), scores=scores)

    def _choose(self, nodes: Sequence[Node], scores: FloatArray, context: Context) -> int | None:
        among = finished(nodes)
        if self.select == "weighted":
            return weighted_vote(ballots_of(nodes, context), scores)[0]
        if self.select == "soft":
            return among[_draw(softmax(scores[among] / self.tau), context.uniform("soft"))]
        if self.ties == "random":
            among = [i for i in among if scores[i] == scores[among].max()]
            return among[int(context.uniform("ties") * len(among))]
        return best_of(scores, among)


def _draw(weights: FloatArray, mark: float) -> int:
    return int(np.searchsorted(np.cumsum(weights), mark * weights.sum(), side="right").clip(0, len(weights) - 1))
