"""Choosing among candidates: pure functions over answers, weights and scores. An answer of None never votes.

The order of the candidates matters for ties alone: sums are exact (`math.fsum`), so no rounding depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError

Numbers = Sequence[float] | FloatArray


def tally(answers: Sequence[Hashable | None], weights: Numbers | None = None) -> dict[Hashable, float]:
    """Total weight of each answer, in the order of their first appearance; None is left out.

    Raises:
        ConfigError: a weight is negative or no number.
    """
    shares: dict[Hashable, list[float]] = {}
    for i, answer in enumerate(answers):
        if answer is not None:
            shares.setdefault(answer, []).append(1.0 if weights is None else _weight(weights[i]))
    return {answer: math.fsum(parts) for answer, parts in shares.items()}


def vote(
    answers: Sequence[Hashable | None], weights: Numbers | None = None, merits: Numbers | None = None
) -> int | None:
    """Index of the candidate that stands for the winning answer; None if there is no answer.

    The answer with the largest total weight wins; of equal ones that with the larger sum of merits, then the first
    seen. It is represented by its candidate of most merit (of most weight without merits), the first of equals.
    """
    totals = tally(answers, weights)
    if not totals:
        return None
    sums = dict.fromkeys(totals, 0.0)
    if merits is not None:
        for answer in totals:
            sums[answer] = math.fsum(merits[i] for i, other in enumerate(answers) if other == answer)
    winner = max(totals, key=lambda answer: (totals[answer], sums[answer]))
    standing = merits if merits is not None else weights
    members = [i for i, answer in enumerate(answers) if answer == winner]
    return members[0] if standing is None else max(members, key=lambda i: float(standing[i]))


def finished(nodes: Sequence[Node]) -> list[int]:
    """Indices of the candidates a choice is made among: the answers that came to their end, or all if none did.

    A cut answer can score well so far and be worth nothing, so it never stands against a finished one.
    """
    ended = [i for i, node in enumerate(nodes) if node.finish_reason == "stop"]
    return ended or list(range(len(nodes)))


def best_of(scores: Numbers, among: Sequence[int]) -> int | None:
    """Index of the highest score among the given candidates, the first of equals; None among none."""
    return max(among, key=lambda i: float(scores[i])) if among else None


def _weight(weight: float) -> float:
    if not (weight >= 0 and math.isfinite(weight)):
        raise ConfigError(f"a vote cannot weigh {weight}: use a scorer whose range starts at 0, or count votes equally")
    return float(weight)
