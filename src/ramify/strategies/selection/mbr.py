"""Minimum Bayes risk: draw n answers, take the one most like all the others (Suzgun et al., arXiv:2211.07634).

The vote for answers that are no keys (a text, a program, a proof): each sample stands for the model's law, and the
answer with the highest expected similarity under it has the least expected loss.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ramify.backends.base import FloatArray
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.ballots import Ballot, ballots_of, check_n, standing
from ramify.strategies.selection.similarity import SIMILARITIES, Similarity

Named = Literal["chrf", "f1", "edit", "key"]


@strategy("mbr", kind="approximate", paper="arXiv:2211.07634")
@dataclass(frozen=True)
class MinimumBayesRisk(Method):
    """The answer with the largest sum of similarities to the other samples; the first of equals.

    Attributes:
        n: answers to draw.
        similarity: "chrf" (character n-grams), "f1" (words without order), "edit" (Levenshtein), "key" (the same
            answer or not: a majority vote), or, from Python, any function of two ballots to [0, 1].
    """

    n: int = 16
    similarity: Named | Similarity = "chrf"

    def __post_init__(self) -> None:
        check_n(self.n)
        measure_of(self.similarity)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw and compare."""
        answers = await context.extend([await context.root()], self.n)
        ballots, measure = ballots_of(answers, context), measure_of(self.similarity)
        rows = []
        for place in range(len(ballots)):
            rows.append(similarities_of(place, ballots, measure))
            await asyncio.sleep(0)  # a deadline and a cancel are heard between the rows
        best, gains = least_risk(ballots, np.array(rows, dtype=np.float64).reshape(len(ballots), len(ballots)))
        return context.result(answers, best, weights=gains)


def measure_of(named: str | Similarity) -> Similarity:
    """A similarity by its name, or as it is. Raises `ConfigError` for an unknown name."""
    if not isinstance(named, str):
        return named
    if named not in SIMILARITIES:
        raise ConfigError(f"similarity={named!r} does not work: choose from {', '.join(SIMILARITIES)}")
    return SIMILARITIES[named]


def mbr(ballots: Sequence[Ballot], measure: Similarity) -> tuple[int | None, FloatArray]:
    """The winner's index and the mean similarity of every ballot to the others that stand, [ballots]."""
    return least_risk(ballots, similarities(ballots, measure))


def similarities(ballots: Sequence[Ballot], measure: Similarity) -> FloatArray:
    """All of them, [answer, reference]; the diagonal is 0, since an answer does not speak for itself."""
    found = [similarities_of(place, ballots, measure) for place in range(len(ballots))]
    return np.array(found, dtype=np.float64).reshape(len(ballots), len(ballots))


def similarities_of(place: int, ballots: Sequence[Ballot], measure: Similarity) -> list[float]:
    """Of one answer to each reference."""
    answer = ballots[place]
    return [0.0 if place == i else measure(answer, reference) for i, reference in enumerate(ballots)]


def least_risk(ballots: Sequence[Ballot], matrix: FloatArray) -> tuple[int | None, FloatArray]:
    """`mbr` where the similarities of the ballots are known, [answer, reference]."""
    among = standing(ballots)
    gains = np.zeros(len(ballots))
    for i in among:
        gains[i] = math.fsum(matrix[i, among]) / max(1, len(among) - 1)
    return max(among, key=lambda i: float(gains[i]), default=None), gains
