"""Unbiased estimates from a pool of n samples of what k of them would give, and intervals over problems.

The pool is drawn once; every estimate here is the exact mean over all subsets of k of its samples (the weighted
vote and soft best-of-n, for which no closed form is known, draw subsets by seed). What is undefined is NaN; a k that
the pool cannot answer is an error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramify.errors import ConfigError
from ramify.randomness import BranchKey, FloatArray, uniform_counters

SUBSETS = 1000
"""Subsets drawn where an estimate has no closed form: the standard error is then at most 1.6 points."""
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over problems and its confidence interval; NaN where undefined (no value, or too few for an interval)."""

    mean: float
    low: float
    high: float


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The probability that at least one of k samples is right: 1 - C(n - c, k) / C(n, k).

    Args:
        n: samples in the pool.
        correct: how many of them are right.
        k: samples in a subset, from 1 to n.

    Raises:
        ConfigError: k is not in 1..n, or `correct` not in 0..n.

    Paper: Chen et al., arXiv:2107.03374.
    """
    _check_k(n, k)
    if not 0 <= correct <= n:
        raise ConfigError(f"correct={correct} of n={n} samples: it must be between 0 and n")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def best_of_n_at_k(scores: Sequence[float], correct: Sequence[bool], k: int) -> float:
    """The probability that the sample with the highest score among k is right.

    A sample of rank r (1 is the best) wins in C(n - r, k - 1) of the C(n, k) subsets. Samples of equal score
    share their subsets evenly: in a random order each of them is equally likely to come first.

    Args:
        scores: [n] any finite or infinite numbers, higher is better.
        correct: [n] whether each sample is right.
        k: samples in a subset, from 1 to n.

    Raises:
        ConfigError: k is not in 1..n, the lengths differ, or a score is NaN.
    """
    n = _check_lengths(len(scores), len(correct))
    _check_k(n, k)
    if any(math.isnan(score) for score in scores):
        raise ConfigError("a score is NaN: a sample without a score cannot be ranked; score the pool again")
    total = 0.0
    worse = n
    for score, tied in sorted(Counter(scores).items(), reverse=True):
        wins = math.comb(worse, k) - math.comb(worse - tied, k)
        right = sum(ok for ok, own in zip(correct, scores, strict=True) if own == score)
        total += wins / math.comb(n, k) * right / tied
        worse -= tied
    return total


def maj_at_k(keys: Sequence[Hashable | None], correct: Sequence[bool], k: int) -> float:
    """The probability that the most frequent answer among k samples is right. None never votes.

    Exact for any number of different answers: the counts in a subset follow the multivariate hypergeometric law, summed
    over the winner's count m with all other answers at most m. Ties go to the answer seen first, which in a random
    order is each of the tied ones equally often; a subset without any answer is wrong.

    Args:
        keys: [n] canonical answers; None where there is no readable answer.
        correct: [n] whether each sample is right; samples of one key must agree.
        k: samples in a subset, from 1 to n.

    Raises:
        ConfigError: k is not in 1..n, the lengths differ, or one key is both right and wrong.

    Paper: Wang et al., self-consistency, arXiv:2203.11171.
    """
    n = _check_lengths(len(keys), len(correct))
    _check_k(n, k)
    right = _right_keys(keys, correct)
    counts = Counter(key for key in keys if key is not None)
    return float(sum(_win_probability(key, counts, n, k) for key in right))


def weighted_at_k(
    keys: Sequence[Hashable | None], weights: Sequence[float], correct: Sequence[bool], k: int, seed: int = 0
) -> float:
    """The probability that the answer with the largest sum of weights among k samples is right, from seeded subsets.

    Args:
        keys: [n] canonical answers; None never votes.
        weights: [n] numbers of 0 or more, e.g. scores of a reward model.
        correct: [n] whether each sample is right; samples of one key must agree.
        k: samples in a subset, from 1 to n. For k = n there is one subset and the result is exact.
        seed: the subsets are a function of it.

    Raises:
        ConfigError: k is not in 1..n, the lengths differ, a weight is negative or NaN, or a key is right and wrong.
    """
    n = _check_lengths(len(keys), len(correct), len(weights))
    _check_k(n, k)
    if not all(weight >= 0 for weight in weights):
        raise ConfigError("weights must be numbers of 0 or more: use scores in [0, 1], or ranks")
    right = _right_keys(keys, correct)
    names = [key for key in dict.fromkeys(keys) if key is not None]
    if not names:
        return 0.0
    is_right = np.array([name in right for name in names], dtype=np.float64)
    votes = np.array([[key == name for name in names] for key in keys], dtype=np.float64).reshape(n, len(names))
    chosen = votes[subsets(n, k, seed)]  # [subsets, k, names]
    weighted = (votes * np.asarray(weights, dtype=np.float64)[:, None])[subsets(n, k, seed)]
    sums = np.where(chosen.any(axis=1), weighted.sum(axis=1), -1.0)
    answered = chosen.any(axis=(1, 2))
    winners: npt.NDArray[np.bool_] = np.equal(sums, sums.max(axis=1, keepdims=True))
    winners[~answered] = False
    return float(np.mean((winners @ is_right) / np.maximum(winners.sum(axis=1), 1)))


def soft_at_k(scores: Sequence[float], correct: Sequence[bool], k: int, temperature: float, seed: int = 0) -> float:
    """The probability that a sample drawn in proportion to exp(score / temperature) among k is right, from subsets.

    Args:
        scores: [n] finite numbers.
        correct: [n] whether each sample is right.
        k: samples in a subset, from 1 to n. For k = n there is one subset and the result is exact.
        temperature: above 0; towards 0 this is best-of-n, towards infinity the mean of the pool.
        seed: the subsets are a function of it.

    Raises:
        ConfigError: k is not in 1..n, the lengths differ, a score is not finite or the temperature not above 0.
    """
    n = _check_lengths(len(scores), len(correct))
    if not temperature > 0:
        raise ConfigError(f"temperature={temperature} does not work: it must be above 0 (best_of_n_at_k is its limit)")
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ConfigError("a score is not finite: it has no weight; score the pool again")
    chosen = subsets(n, k, seed)
    logits = values[chosen] / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    right = (weights * np.asarray(correct, dtype=np.float64)[chosen]).sum(axis=1) / weights.sum(axis=1)
    return float(right.mean())


def subsets(n: int, k: int, seed: int, count: int = SUBSETS) -> npt.NDArray[np.intp]:
    """Random subsets of k out of n, each in random order: [count, k] indices. All of them if k is 1 or n."""
    _check_k(n, k)
    if k == n:
        return np.arange(n)[None, :]
    if k == 1:
        return np.arange(n)[:, None]
    draws = uniform_counters(BranchKey.root(seed, f"subsets of {k} out of {n}"), count * n).reshape(count, n)
    return np.argsort(draws, axis=1, kind="stable")[:, :k]


def bootstrap_interval(
    values: Sequence[float] | FloatArray,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """The mean over problems with a percentile bootstrap interval, resampling problems, or groups of like ones.

    The interval of a paired difference is that of the differences, one a problem.

    Args:
        values: one number a problem; NaN (undefined for this problem) makes all three results NaN.
        level: probability mass of the interval, in (0, 1).
        resamples: bootstrap samples.
        seed: the interval is a function of the values, the groups and this.
        groups: one a problem. Problems of one group (one puzzle in several wordings) are no independent evidence: they
            are drawn together. By default every problem stands alone.

    Raises:
        ConfigError: `level` is out of range, or there are not as many groups as values.

    Paper: Efron, "Bootstrap methods: another look at the jackknife" (1979); of groups: Field and Welsh (2007).
    """
    if not 0 < level < 1:
        raise ConfigError(f"level={level} does not work: it must be between 0 and 1, e.g. {LEVEL}")
    array = np.asarray(values, dtype=np.float64)
    if groups is not None:
        _check_lengths(array.size, len(groups))
    if array.size == 0 or np.isnan(array).any():
        return Interval(math.nan, math.nan, math.nan)
    sums, sizes = _group_sums(array, groups)
    mean = float(array.mean())
    if sums.size < 2:
        return Interval(mean, math.nan, math.nan)
    draws = uniform_counters(BranchKey.root(seed, "bootstrap"), resamples * sums.size)
    picked = (draws * sums.size).astype(np.intp).reshape(resamples, sums.size)
    means = sums[picked].sum(axis=1) / sizes[picked].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def _group_sums(array: FloatArray, groups: Sequence[Hashable] | None) -> tuple[FloatArray, FloatArray]:
    """The sum and the number of the values of each group, in the order in which the groups first occur."""
    if groups is None:
        return array, np.ones_like(array)
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    indices = [places[group] for group in groups]
    sums = np.asarray(np.bincount(indices, weights=array), dtype=np.float64)
    return sums, np.bincount(indices).astype(np.float64)


def _win_probability(winner: Hashable, counts: Counter[Hashable], n: int, k: int) -> float:
    """Give the probability that `winner` is the most frequent key of k samples, its share of ties included.

    Hypergeometric counts are binomial ones (any p) given their sum. So sums of groups convolve, the small keys that
    cannot reach the winner's count form one group with the samples that have no answer, and nothing overflows.
    """
    p = k / n
    if k == n:
        top = max(counts.values())
        return float(counts[winner] == top) / sum(count == top for count in counts.values())
    total = 0.0
    others = [count for key, count in counts.items() if key != winner]
    own = _binomial(counts[winner], p)
    for m in range(1, min(k, counts[winner]) + 1):
        rivals = [count for count in others if count >= m]
        rest = n - counts[winner] - sum(rivals)
        # ways[t][s]: t rivals have exactly m samples in the subset, none has more; s samples are not the winner's.
        ways = [_binomial(rest, p)[: k - m + 1]]
        for rival in rivals:
            ways = _add_rival(ways, _binomial(rival, p), m, k - m + 1)
        shares = [row[k - m] / (ties + 1) for ties, row in enumerate(ways) if len(row) > k - m]
        total += own[m] * float(sum(shares))
    return total / float(_binomial(n, p)[k])


def _add_rival(ways: list[FloatArray], rival: FloatArray, m: int, size: int) -> list[FloatArray]:
    below = [np.convolve(row, rival[:m])[:size] for row in ways]
    tied = [np.concatenate([np.zeros(m), row * rival[m]])[:size] for row in ways]
    padded = [*below, np.zeros(1)]
    for index, row in enumerate(tied, start=1):
        short, long = sorted((padded[index], row), key=len)
        merged = long.copy()
        merged[: len(short)] += short
        padded[index] = merged
    return padded


def _binomial(n: int, p: float) -> FloatArray:
    """The probabilities of 0..n successes: [n + 1]."""
    logs = [math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(n - x + 1) for x in range(n + 1)]
    x = np.arange(n + 1)
    pmf: FloatArray = np.exp(np.array(logs) + x * math.log(p) + (n - x) * math.log1p(-p))
    return pmf


def _right_keys(keys: Sequence[Hashable | None], correct: Sequence[bool]) -> set[Hashable]:
    right = {key for key, ok in zip(keys, correct, strict=True) if ok and key is not None}
    wrong = {key for key, ok in zip(keys, correct, strict=True) if not ok}
    if both := right & wrong:
        raise ConfigError(
            f"the answer {next(iter(both))!r} is marked both right and wrong: one key stands for one answer"
        )
    return right


def _check_k(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ConfigError(f"k={k} cannot be estimated from a pool of {n} samples: choose k from 1 to {n} or draw more")


def _check_lengths(*lengths: int) -> int:
    if len(set(lengths)) > 1:
        raise ConfigError(
            f"one entry a sample is wanted in each list; their lengths are {', '.join(map(str, lengths))}"
        )
    return lengths[0]
