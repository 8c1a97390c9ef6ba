"""Strengths from pairwise comparisons: the Bradley-Terry model (1952), fitted by damped Newton steps.

Player i beats j with probability ``s_i / (s_i + s_j)``. A few virtual games against a player of strength 1, half of
them won, make the fit exist and be unique whatever was played: nobody won everything, and no two groups never met.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ramify.backends.base import FloatArray

PRIOR = 1.0
"""Virtual games a player: one, half won, half lost."""
ITERATIONS = 200
TOLERANCE = 1e-10
DIGITS = 9
"""Decimals of a logarithm of strength that count: what lies behind them is rounding, and a tie is a tie."""


class Bracket:
    """Who meets whom, and how they stand: everybody everybody, or in a large field those of like standing (Swiss).

    Args:
        players: how many; they are numbered in the order that breaks ties.
        limit: players up to which everybody meets everybody, once.
        rounds: of a larger field; by default the logarithm of the players' number to base 2, rounded up, plus 1.
        prior: see `bradley_terry`.
    """

    def __init__(self, players: int, limit: int, rounds: int | None = None, prior: float = PRIOR) -> None:
        self.order = list(range(players))
        """From the strongest to the weakest, after the last whole round."""
        self.strengths = np.ones(players)
        self.unreadable = 0
        """Comparisons without a verdict."""
        self.met: set[frozenset[int]] = set()
        self._wins = np.zeros((players, players))
        self._limit = limit
        self._rounds = rounds
        self._prior = prior

    def rounds(self) -> Iterator[list[tuple[int, int]]]:
        """The pairs of each round; record all of them before the next is asked for."""
        players = len(self.order)
        if players <= self._limit:
            yield list(itertools.combinations(range(players), 2))
            self._stand()
            return
        for _ in range(self._rounds or math.ceil(math.log2(players)) + 1):
            yield swiss_pairs(self.order, self.met)
            self._stand()

    def record(self, first: int, second: int, chance: float | None) -> None:
        """A comparison: the probability that the first is better, or None if that is not known: nobody wins."""
        self.met.add(frozenset((first, second)))
        if chance is None:
            self.unreadable += 1
            return
        self._wins[first, second] += chance
        self._wins[second, first] += 1 - chance

    def _stand(self) -> None:
        self.strengths = bradley_terry(self._wins, self._prior)
        self.order = ranking(self.strengths)


def bradley_terry(wins: FloatArray, prior: float = PRIOR) -> FloatArray:
    """Strengths, [players], above 0; 1 is a player of even results.

    Args:
        wins: [players, players] games that the row's player won against the column's; fractions are allowed, so a
            comparison with probability p adds p to one entry and 1 - p to the other.
        prior: virtual games a player, above 0.
    """
    games, won = wins + wins.T, wins.sum(axis=1)
    logs = np.zeros(len(wins))
    for _ in range(ITERATIONS):
        chances, even = _logistic(logs[:, None] - logs[None, :]), _logistic(logs)
        gradient = won - (games * chances).sum(axis=1) + prior * (0.5 - even)
        spreads = games * chances * (1 - chances)
        curvature = np.diag(spreads.sum(axis=1) + prior * even * (1 - even)) - spreads
        step = np.linalg.solve(curvature, gradient)
        largest = float(np.abs(step).max(initial=0.0))
        logs = logs + step / (1 + largest)  # damped while far away, where a whole step may overshoot
        if largest < TOLERANCE:
            break
    return np.asarray(np.exp(logs), dtype=np.float64)


def _logistic(values: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)), dtype=np.float64)


def ranking(strengths: FloatArray) -> list[int]:
    """Players from the strongest to the weakest; ties in the order given."""
    levels = np.round(np.log(strengths), DIGITS)
    return sorted(range(len(levels)), key=lambda i: -float(levels[i]))


def swiss_pairs(order: Sequence[int], met: Collection[frozenset[int]]) -> list[tuple[int, int]]:
    """A round: from the top of the order, each player against the next one free whom it has not met yet."""
    pairs: list[tuple[int, int]] = []
    free = list(order)
    while free:
        player = free.pop(0)
        other = next((rival for rival in free if frozenset((player, rival)) not in met), None)
        if other is not None:
            free.remove(other)
            pairs.append((player, other))
    return pairs
