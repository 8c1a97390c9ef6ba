"""Perplexity consistency with reasoning pruning: an answer counts for the probability of the ways that lead to it.

Zhou et al., arXiv:2510.15444. Self-consistency estimates an answer's probability by a count; the model states that of
each sampled way exactly. So distinct ways are summed by answer with their probabilities, and before that the unlikely
ones are pruned where a mixture of two Weibull laws, fitted to all of them, takes them for the lower kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ramify.backends.base import Capability, FloatArray
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.ballots import Ballot, ballots_of, check_n, standing
from ramify.strategies.selection.weibull import upper_posterior
from ramify.strategies.votes import best_of, vote

Probability = Literal["path", "token"]


@strategy("rpc", kind="approximate", paper="arXiv:2510.15444", needs=(Capability.LOGPROBS,))
@dataclass(frozen=True)
class PerplexityConsistency(Method):
    """The answer whose distinct sampled ways have the largest probability in sum.

    Attributes:
        n: answers to draw.
        prune: leave out ways that the fitted mixture takes for its lower component and that lie below the mean.
        probability: of a "path", as in the paper; or the geometric mean of its "token" probabilities, which does not
            shrink with length.
    """

    n: int = 16
    prune: bool = True
    probability: Probability = "path"

    def __post_init__(self) -> None:
        check_n(self.n)

    @property
    def requires(self) -> frozenset[Capability]:
        """Log-probabilities of drawn tokens."""
        return frozenset({Capability.LOGPROBS})

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw with log-probabilities, prune, sum."""
        answers = await context.extend([await context.root()], self.n, logprobs=self.sampling.logprobs or 0)
        best, weights = rpc(ballots_of(answers, context), self.prune, self.probability)
        return context.result(answers, best, weights=weights)


def rpc(
    ballots: Sequence[Ballot], prune: bool = True, probability: Probability = "path"
) -> tuple[int | None, FloatArray]:
    """The winner's index and the weight of every ballot: its way's probability over that of the likeliest voter.

    A way that was drawn twice counts once, and so does only the first of its ballots. If no answer can be read, the
    likeliest way is chosen; if all that can be read are pruned, nothing is.

    Raises:
        ConfigError: a ballot has no log-probability.
    """
    logs = np.array([_log_probability(ballot, probability) for ballot in ballots], dtype=np.float64)
    weights = np.zeros(len(ballots))
    paths = distinct(ballots)
    kept = _pruned(paths, logs) if prune else paths
    readable = [i for i in kept if ballots[i].answer is not None] or [i for i in paths if ballots[i].answer is not None]
    if not readable:
        return best_of(logs, paths), weights
    weights[readable] = np.exp(logs[readable] - logs[readable].max())
    return vote([ballots[i].answer if i in readable else None for i in range(len(ballots))], weights), weights


def distinct(ballots: Sequence[Ballot]) -> list[int]:
    """Of the ballots that stand, the first of each way."""
    first: dict[object, int] = {}
    for i in standing(ballots):
        first.setdefault(ballots[i].tokens or ballots[i].text, i)
    return list(first.values())


def _pruned(paths: Sequence[int], logs: FloatArray) -> list[int]:
    """Those that are likely enough: upper component with probability 0.5 or more, or at least as likely as the mean."""
    values = logs[list(paths)]
    upper = upper_posterior(values)
    shares = np.exp(values - values.max())
    mean = math.fsum(shares) / len(shares)
    return [i for i, chance, share in zip(paths, upper, shares, strict=True) if chance >= 0.5 or share >= mean]


def _log_probability(ballot: Ballot, probability: Probability) -> float:
    value = ballot.logprob if probability == "path" else ballot.mean_logprob
    if value is None:
        raise ConfigError("a candidate has no log-probability: draw with logprobs=0, or choose another selector")
    return value
