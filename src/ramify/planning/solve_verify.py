"""Solve or verify: how many samples and how many verifications of each a budget should buy, fitted on a pool.

Singhi et al., "When To Solve, When To Verify: Compute-Optimal Problem Solving and Generative Verification for LLM
Reasoning", arXiv:2504.01005. With no verification the samples vote; with V of them each sample's score is the mean of V
verdicts, and its answer's votes are weighted by that (or the best score wins). S samples and V verdicts a sample cost
S * (solution + V * verification) tokens, and what a verifier reads once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ramify.errors import ConfigError
from ramify.randomness import BranchKey, FloatArray, uniform_counters
from ramify.strategies.votes import vote

Select = Literal["weighted", "best"]
SUBSETS = 200
"""Choices of samples and verdicts a problem and split: over 60 problems they add less than half a point of error."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A problem's samples with their verdicts.

    Attributes:
        answers: [samples] keys; None where none can be read.
        correct: [samples] whether each is right.
        verdicts: [samples, verifications] each in [0, 1]: what a verifier said, in the order in which it was asked.
        solution_tokens: mean tokens of a sample.
        verification_tokens: mean tokens of a verdict.
        once: tokens that verifying costs once, however often it is done: a prompt that a reward model keeps.

    Raises:
        ConfigError: the lengths differ, a verdict is out of [0, 1] or nothing is there.
    """

    answers: tuple[Hashable | None, ...]
    correct: tuple[bool, ...]
    verdicts: FloatArray
    solution_tokens: float
    verification_tokens: float
    once: float = 0.0

    def __post_init__(self) -> None:
        if not self.answers or not len(self.answers) == len(self.correct) == len(self.verdicts):
            raise ConfigError(
                "each sample needs an answer, whether it is right, and its verdicts; and there must be one"
            )
        if self.verdicts.ndim != 2 or not ((self.verdicts >= 0) & (self.verdicts <= 1)).all():
            raise ConfigError("verdicts are numbers in [0, 1], [samples, verifications]")


@dataclass(frozen=True, slots=True)
class Split:
    """So many samples with so many verifications each.

    Attributes:
        samples, verifications: S and V.
        tokens: mean a problem.
        accuracy: share of right answers.
    """

    samples: int
    verifications: int
    tokens: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Growth:
    """How the best split grows with the budget C: S ~ C^samples and V ~ C^verifications.

    Attributes:
        samples, verifications: the exponents, by least squares over the logarithms; NaN where fewer than two budgets
            have a best split with a verification.
    """

    samples: float
    verifications: float


def accuracy_of(
    problem: Verified, samples: int, verifications: int, select: Select = "weighted", seed: int = 0,
    subsets: int = SUBSETS,
) -> float:  # fmt: skip
    """The probability of a right answer from S of a problem's samples with V verdicts each, over seeded choices.

    Raises:
        ConfigError: the problem has not so many.
    """
    n, most = problem.verdicts.shape
    if not 1 <= samples <= n or not 0 <= verifications <= most:
        raise ConfigError(f"S={samples}, V={verifications} cannot be measured on {n} samples with {most} verdicts each")
    count = 1 if samples == n and verifications in (0, most) else subsets
    chosen = _orders(seed, "samples", count, n)[:, :samples]
    asked = _orders(seed, "verdicts", count * n, most).reshape(count, n, most)[:, :, :verifications]
    right = 0
    for places, verdicts in zip(chosen, asked, strict=True):
        scores = [float(problem.verdicts[i, verdicts[i]].mean()) if verifications else 1.0 for i in places]
        winner = _winner([problem.answers[i] for i in places], scores, select if verifications else "weighted")
        right += winner is not None and problem.correct[places[winner]]
    return right / count


def tokens_of(problem: Verified, samples: int, verifications: int) -> float:
    """What that costs."""
    each = problem.solution_tokens + verifications * problem.verification_tokens
    return samples * each + (problem.once if verifications else 0.0)


def grid(
    problems: Sequence[Verified], samples: Sequence[int], verifications: Sequence[int], select: Select = "weighted",
    seed: int = 0, subsets: int = SUBSETS,
) -> list[Split]:  # fmt: skip
    """Every S with every V over some problems.

    Raises:
        ConfigError: there is no problem, or one has not so many samples or verdicts.
    """
    if not problems:
        raise ConfigError("there is no problem to fit a split on")
    return [
        Split(
            s, v,
            float(np.mean([tokens_of(problem, s, v) for problem in problems])),
            float(np.mean([accuracy_of(problem, s, v, select, seed, subsets) for problem in problems])),
        )
        for v in verifications
        for s in samples
    ]  # fmt: skip


def best_split(measured: Sequence[Split], budget: float) -> Split:
    """The most accurate split within a budget; of equals the cheapest.

    Raises:
        ConfigError: the budget is below the cheapest.
    """
    within = [split for split in measured if split.tokens <= budget]
    if not within:
        least = min(split.tokens for split in measured)
        raise ConfigError(f"a budget of {budget:g} tokens a problem is too small: the cheapest split takes {least:.0f}")
    return max(within, key=lambda split: (split.accuracy, -split.tokens))


def growth(measured: Sequence[Split], budgets: Sequence[float]) -> Growth:
    """The power laws of the best splits over some budgets, among those that verify."""
    verifying = [split for split in measured if split.verifications]
    reached = [b for b in budgets if any(split.tokens <= b for split in verifying)]
    best = [best_split(verifying, budget) for budget in reached]
    logs = [math.log(budget) for budget in reached]
    return Growth(
        _slope(logs, [math.log(split.samples) for split in best]),
        _slope(logs, [math.log(split.verifications) for split in best]),
    )


def _winner(answers: list[Hashable | None], scores: list[float], select: Select) -> int | None:
    if select == "weighted":
        return vote(answers, scores)
    readable = [i for i, answer in enumerate(answers) if answer is not None]
    return max(readable, key=lambda i: (scores[i], -i), default=None)


def _orders(seed: int, name: str, count: int, size: int) -> npt.NDArray[np.intp]:
    """`count` random orders of `size` things, [count, size]."""
    draws = uniform_counters(BranchKey.root(seed, f"solve or verify/{name}"), count * size)
    return np.argsort(draws.reshape(count, size), axis=1, kind="stable")


def _slope(x: list[float], y: list[float]) -> float:
    if len(set(x)) < 2:
        return math.nan
    return float(np.polyfit(x, y, 1)[0])
