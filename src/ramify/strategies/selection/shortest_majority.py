"""Shortest majority vote: many votes count for an answer, and so do short solutions (Zeng et al., arXiv:2502.12215)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ramify.backends.base import FloatArray
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.ballots import Ballot, ballots_of, check_n, standing, voters
from ramify.strategies.votes import vote

SHORTEST = 2
"""Tokens: a mean length below it counts as this, since the logarithm of 1 is 0."""


@strategy("shortest-majority", kind="approximate", paper="arXiv:2502.12215")
@dataclass(frozen=True)
class ShortestMajority(Method):
    """The answer with the largest ``count / log(mean length of its samples)``. Cut answers have no length and no vote.

    Attributes:
        n: answers to draw.
    """

    n: int = 16

    def __post_init__(self) -> None:
        check_n(self.n)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw and vote."""
        answers = await context.extend([await context.root()], self.n)
        best, weights = shortest_majority(ballots_of(answers, context))
        return context.result(answers, best, weights=weights)


def shortest_majority(ballots: Sequence[Ballot]) -> tuple[int | None, FloatArray]:
    """The winner's index and the weight of every ballot, [ballots]: ``1 / log(mean length)`` of its answer's samples.

    Ties go to the answer first seen; its shortest sample stands for it. If nothing can be read, the shortest of all.
    """
    weights = np.zeros(len(ballots))
    voting = voters(ballots)
    if not voting:
        return min(standing(ballots), key=lambda i: ballots[i].num_tokens, default=None), weights
    lengths: dict[Hashable, list[int]] = {}
    for i in voting:
        lengths.setdefault(ballots[i].answer, []).append(ballots[i].num_tokens)
    for i in voting:
        own = lengths[ballots[i].answer]
        weights[i] = 1 / math.log(max(SHORTEST, sum(own) / len(own)))
    winner = vote([ballots[i].answer for i in voting], weights[voting])
    chosen = ballots[voting[winner or 0]].answer
    return min((i for i in voting if ballots[i].answer == chosen), key=lambda i: ballots[i].num_tokens), weights
