"""Weighted voting: draw n answers, let each vote for what it says with the weight that a scorer gives it.

By a verifier's scores: Li et al., arXiv:2206.02336. By the model's own confidence: Taubenfeld et al., arXiv:2502.06233.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ramify.backends.base import FloatArray
from ramify.errors import ConfigError
from ramify.scoring.confidence import InversePerplexity, details_for
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.ballots import Ballot, ballots_of, check_n, standing, voters
from ramify.strategies.votes import Numbers, Transform, best_of, check_transform, most_of, vote, vote_weights


@strategy("weighted-vote", kind="approximate", paper="arXiv:2206.02336", needs=("scorer",))
@dataclass(frozen=True)
class WeightedVote(Method):
    """The answer whose samples weigh most in sum. Equal samples are as many votes, since they were drawn independently.

    Attributes:
        n: answers to draw.
        scorer: weighs them; the inverse perplexity of the model itself by default.
        transform: how scores become weights: "none" (needs a range from 0 or more to a finite end), "share" (needs
            scores of 0 or more), "rank" or "softmax".
        tau: temperature of "softmax", in standard deviations of the scores that vote.
        power: of "rank": its weights are ``(rank / n) ** power``.
    """

    n: int = 16
    scorer: Scorer = field(default_factory=InversePerplexity)
    transform: Transform = "none"
    tau: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        check_n(self.n)
        check_shape(self.tau, self.power)
        check_transform(self.transform, self.scorer.range, type(self.scorer).__name__)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw, score, vote."""
        root = await context.root()
        answers = await context.extend([root], self.n, scored_by=self.scorer, **details_for(self.scorer))
        scores = await context.score(answers, self.scorer)
        best, weights = weighted_vote(ballots_of(answers, context), scores, self.transform, self.tau, self.power)
        return context.result(answers, best, scores=scores, weights=weights)


def weighted_vote(
    ballots: Sequence[Ballot],
    scores: Numbers,
    transform: Transform = "none",
    tau: float = 1.0,
    power: float = 1.0,
    keep: float = 1.0,
) -> tuple[int | None, FloatArray]:
    """The winner's index and the weight of every ballot, [ballots], 0 for those that do not vote.

    Finished answers that can be read vote; of these only the share `keep` with the highest scores. Of answers that
    weigh the same the first seen wins; its heaviest sample stands for it. If nothing can be read, the highest score.
    """
    weights = np.zeros(len(ballots))
    voting = most_of(scores, voters(ballots), keep)
    if not voting:
        return best_of(scores, standing(ballots)), weights
    weights[voting] = vote_weights([float(scores[i]) for i in voting], transform, tau, power)
    return vote([ballots[i].answer if i in voting else None for i in range(len(ballots))], weights), weights


def check_shape(tau: float, power: float) -> None:
    """Refuse weights that would not favour the better. Raises `ConfigError`."""
    if not tau > 0:
        raise ConfigError(f"tau={tau} does not work: it must be above 0")
    if not power >= 0:
        raise ConfigError(f"power={power} does not work: it must be 0 (plain counting) or more")
