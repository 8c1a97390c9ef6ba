"""Choosing among candidates: pure functions over answers, weights and scores. An answer of None never votes.

The order of the candidates matters for ties alone: sums are exact (`math.fsum`), so no rounding depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError

Numbers = Sequence[float] | FloatArray
Transform = Literal["none", "share", "rank", "softmax"]
"""How scores become the weights of a vote:

- "none": the scores themselves; only where their range is bounded and starts at 0 or above, so that they have a scale.
- "share": scores over their sum (0 or more): the unit they are measured in makes no difference.
- "rank": ranks from 1 for the lowest, equals sharing their mean rank, over their number, to a power: no increasing
  change of the scores makes a difference. With a power it is the Borda count of arXiv:2502.18581.
- "softmax": ``exp(z / tau)``, z in standard deviations from the mean of those who vote: neither unit nor origin makes
  a difference.
"""


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
    return finished_places([node.finish_reason == "stop" for node in nodes])


def finished_places(ended: Sequence[bool]) -> list[int]:
    """The same where only it is known which of them ended."""
    return [i for i, end in enumerate(ended) if end] or list(range(len(ended)))


def best_of(scores: Numbers, among: Sequence[int]) -> int | None:
    """Index of the highest score among the given candidates, the first of equals; None among none."""
    return max(among, key=lambda i: float(scores[i])) if among else None


def vote_weights(scores: Numbers, transform: Transform = "none", tau: float = 1.0, power: float = 1.0) -> FloatArray:
    """Weights of 0 or more from scores, [n]; the order of the scores makes no difference to any of them.

    Args:
        scores: [n] finite.
        transform: see `Transform`.
        tau: temperature of "softmax", in standard deviations.
        power: of "rank"; 0 counts votes, larger ones favour the top.

    Raises:
        ConfigError: a score is not finite, or negative where it is a weight itself.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ConfigError(f"scores {values} cannot weigh votes: they must be finite")
    if transform == "rank":
        return np.asarray((mean_ranks(values) / max(1, len(values))) ** power, dtype=np.float64)
    if transform == "softmax":
        logits = standardised(values) / tau
        return np.asarray(np.exp(logits - logits.max(initial=0.0)), dtype=np.float64)
    for value in values:
        _weight(float(value))
    total = math.fsum(values)
    return values / total if transform == "share" and total > 0 else values


def check_transform(transform: Transform, score_range: tuple[float, float], scorer: str) -> None:
    """Refuse scores without a scale as weights.

    Raises:
        ConfigError: they can be negative, or have no upper end with "none"; says which transform works.
    """
    low, high = score_range
    if transform in ("none", "share") and low < 0:
        raise ConfigError(
            f"transform={transform} needs scores of 0 or more; {scorer} gives {score_range}: "
            "use transform=rank or softmax"
        )
    if transform == "none" and not math.isfinite(high):
        raise ConfigError(
            f"transform=none needs scores on a scale with two ends; {scorer} gives {score_range}: "
            "use transform=share, rank or softmax"
        )


def mean_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1 for the lowest; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place.reshape(-1)], dtype=np.float64)


def standardised(values: FloatArray) -> FloatArray:
    """Standard deviations from the mean; zeros where all values are equal (up to rounding)."""
    if len(values) == 0:
        return values
    mean = math.fsum(values) / len(values)
    centred = values - mean
    spread = math.sqrt(math.fsum(centred**2) / len(values))
    if spread <= 1e-12 * max(1e-300, float(np.abs(values).max())):  # rounding is no difference
        return np.zeros(len(values))
    return np.asarray(centred / spread, dtype=np.float64)


def most_of(scores: Numbers, among: Sequence[int], share: float) -> list[int]:
    """Of the candidates given, the share with the highest scores, at least one; equals of the last one stay with it."""
    if not among:
        return []
    count = max(1, math.ceil(share * len(among) - 1e-9))  # 1e-9: a share of k/n is k candidates, whatever its rounding
    threshold = sorted((float(scores[i]) for i in among), reverse=True)[count - 1]
    return [i for i in among if scores[i] >= threshold]


def _weight(weight: float) -> float:
    if not (weight >= 0 and math.isfinite(weight)):
        raise ConfigError(f"a vote cannot weigh {weight}: use a scorer whose range starts at 0, or count votes equally")
    return float(weight)
