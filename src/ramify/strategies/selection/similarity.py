"""Similarities of two answers, from 0 (nothing in common) to 1: what minimum Bayes risk sums up.

Each is a pure function of (answer, reference). Texts are a model's: all take time at
most proportional to the product of the lengths, and long ones are read up to `LONGEST`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from ramify.strategies.selection.ballots import Ballot

Similarity = Callable[[Ballot, Ballot], float]
"""(answer, reference) -> from 0 to 1."""

LONGEST = 4_000
"""Characters of a text that are compared, the last ones: an answer stands at the end."""
CHRF_ORDER = 6
CHRF_BETA = 2.0
"""Order and weight of recall in chrF (Popovic, 2015)."""

_WORD = re.compile(r"\w+|[^\w\s]")
_CACHED = 65_536


def same_key(answer: Ballot, reference: Ballot) -> float:
    """1 for the same readable answer: minimum Bayes risk is then the majority vote."""
    return float(answer.answer is not None and answer.answer == reference.answer)


def token_f1(answer: Ballot, reference: Ballot) -> float:
    """Harmonic mean of precision and recall over words and signs, without order (as SQuAD scores answers)."""
    return _token_f1(_compared(answer), _compared(reference))


def chrf(answer: Ballot, reference: Ballot) -> float:
    """Character n-gram F-score, n from 1 to 6, recall twice as heavy as precision; spaces do not count."""
    return _chrf(_compared(answer), _compared(reference))


def edit(answer: Ballot, reference: Ballot) -> float:
    """1 less the Levenshtein distance in characters over the longer one's length."""
    return _edit(_compared(answer), _compared(reference))


SIMILARITIES: dict[str, Similarity] = {"key": same_key, "f1": token_f1, "chrf": chrf, "edit": edit}


def _compared(ballot: Ballot) -> str:
    return ballot.text[-LONGEST:]


@lru_cache(maxsize=_CACHED)
def _token_f1(answer: str, reference: str) -> float:
    own, other = Counter(_WORD.findall(answer.casefold())), Counter(_WORD.findall(reference.casefold()))
    if not own or not other:
        return float(own == other)
    common = (own & other).total()
    return 2 * common / (own.total() + other.total())


@lru_cache(maxsize=_CACHED)
def _chrf(answer: str, reference: str) -> float:
    answer, reference = "".join(answer.split()), "".join(reference.split())
    if not answer or not reference:
        return float(answer == reference)
    precisions, recalls = [], []
    for order in range(1, min(CHRF_ORDER, max(len(answer), len(reference))) + 1):
        own, other = _ngrams(answer, order), _ngrams(reference, order)
        common = (own & other).total()
        precisions.append(common / own.total() if own else 0.0)
        recalls.append(common / other.total() if other else 0.0)
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    below = CHRF_BETA**2 * precision + recall
    return min(1.0, (1 + CHRF_BETA**2) * precision * recall / below) if below else 0.0


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))


@lru_cache(maxsize=_CACHED)
def _edit(answer: str, reference: str) -> float:
    longest = max(len(answer), len(reference))
    return 1.0 - levenshtein(answer, reference) / longest if longest else 1.0


def levenshtein(first: Sequence[str], second: Sequence[str]) -> int:
    """The least number of insertions, deletions and replacements that make one of the other.

    Row by row; insertions inside a row are a running minimum, so that a row is a few array operations.
    """
    other = np.array(list(second), dtype=object)
    places = np.arange(len(other) + 1)
    row = places.copy()
    for i, item in enumerate(first, start=1):
        replaced = row[:-1] + (other != item)
        best = np.concatenate([[i], np.minimum(row[1:] + 1, replaced)])
        row = np.minimum.accumulate(best - places) + places
    return int(row[-1])
