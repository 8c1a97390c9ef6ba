"""Confidence voting: drop the answers the model was least sure of, and weigh the votes of the others by confidence.

DeepConf offline, Fu et al., arXiv:2508.15260; with ``scorer=self-certainty,transform=rank`` the Borda count over
self-certainty of Kang et al., arXiv:2502.18581.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ramify.errors import ConfigError
from ramify.scoring.confidence import DeepConf, details_for
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.ballots import ballots_of, check_n
from ramify.strategies.selection.weighted_vote import check_shape, weighted_vote
from ramify.strategies.votes import Transform, check_transform


@strategy("confidence-vote", kind="approximate", paper="arXiv:2508.15260", needs=("scorer",))
@dataclass(frozen=True)
class ConfidenceVote(Method):
    """A vote among the most confident answers, weighted by their confidence.

    Attributes:
        n: answers to draw.
        scorer: the confidence: "deepconf" with its `measure` and `window`, "self-certainty", or any other scorer.
        keep: share of the readable answers that votes, the most confident ones; 1 keeps all. Equals of the last one
            kept are kept too.
        transform: how confidences become weights: "share" (in proportion, the paper's), "rank" (a Borda count),
            "softmax", or "none" for a scorer with a bounded range.
        tau: temperature of "softmax", in standard deviations.
        power: of "rank".
    """

    n: int = 16
    scorer: Scorer = field(default_factory=DeepConf)
    keep: float = 0.9
    transform: Transform = "share"
    tau: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        check_n(self.n)
        check_shape(self.tau, self.power)
        check_transform(self.transform, self.scorer.range, type(self.scorer).__name__)
        if not 0 < self.keep <= 1:
            raise ConfigError(f"keep={self.keep} does not work: it is a share above 0, up to 1")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw with what the confidence reads, filter, vote."""
        root = await context.root()
        answers = await context.extend([root], self.n, scored_by=self.scorer, **details_for(self.scorer))
        scores = await context.score(answers, self.scorer)
        ballots = ballots_of(answers, context)
        best, weights = weighted_vote(ballots, scores, self.transform, self.tau, self.power, self.keep)
        return context.result(answers, best, scores=scores, weights=weights)
