"""The genetics of mind evolution: pure functions over scores, islands of answer numbers, and uniform numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ramify.backends.base import FloatArray

Island = list[int]
"""Numbers of the answers that live there, in the order of their arrival; no text twice."""


def num_parents(mark: float, fresh: float, most: int) -> int:
    """How many parents a uniform number gives: none with probability `fresh`, else 1 to `most` alike."""
    if most < 1 or mark < fresh:
        return 0
    return min(most, 1 + int((mark - fresh) / (1 - fresh) * most))


def tournament(scores: Sequence[float], tau: float, marks: FloatArray, count: int) -> list[int]:
    """Places of `count` winners, drawn one after the other without return in proportion to ``exp(score / tau)``.

    The first come first: they are the largest of score / tau plus Gumbel noise, made of one uniform number a player.
    """
    keys = np.asarray(scores, dtype=np.float64) / tau - np.log(-np.log(marks))
    return [int(place) for place in np.argsort(-keys, kind="stable")[:count]]


def best_first(numbers: Sequence[int], score: Callable[[int], float]) -> list[int]:
    """Answers by falling score, the first of equals first."""
    return sorted(numbers, key=lambda number: -score(number))


def distinct(numbers: Sequence[int], text: Callable[[int], str]) -> list[int]:
    """Answers without those whose text came before."""
    seen: dict[str, int] = {}
    for number in numbers:
        seen.setdefault(text(number), number)
    return list(seen.values())


def emigrate(
    islands: Sequence[Island], count: int, score: Callable[[int], float], text: Callable[[int], str]
) -> list[Island]:
    """The islands after copies of the best `count` of each have gone to the next one in the ring, all at once."""
    leaving = [best_first(island, score)[:count] for island in islands]
    return [distinct([*island, *leaving[place - 1]], text) for place, island in enumerate(islands)]


def worst_islands(islands: Sequence[Island], count: int, score: Callable[[int], float]) -> list[int]:
    """Places of those with the lowest mean score, the first of equals first; one island at least is left out."""
    means = [math.fsum(map(score, island)) / len(island) if island else -math.inf for island in islands]
    return sorted(range(len(islands)), key=lambda place: means[place])[: min(count, len(islands) - 1)]
