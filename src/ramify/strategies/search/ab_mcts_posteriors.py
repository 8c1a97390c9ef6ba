"""The posteriors of adaptive branching, as pure functions of scores and uniform numbers (arXiv:2503.04412).

Each gives one draw of an option's expected score. Draws are quantiles at given uniform numbers, so they repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from ramify.backends.base import FloatArray

Posterior = Callable[[Sequence[float], Sequence[float]], float]
"""(scores seen, two uniform numbers) to a draw of the expected score."""

# Normal with unknown mean and variance: the prior's mean, its weight, degrees of freedom and scale.
PRIOR_MEAN, PRIOR_WEIGHT, PRIOR_FREEDOM, PRIOR_SCALE = 0.0, 1.0, 1.0, 0.1
PRIOR_SUCCESSES = PRIOR_FAILURES = 0.5  # Jeffreys' prior of a Beta

# The mixed model: overall mean, spread of the groups, and noise within a group.
MEAN, MEAN_SPREAD, GROUP_SPREAD, NOISE = 0.5, 0.2, 0.2, 0.3
GRID = 48  # equal shares of each half-normal prior, by which the two spreads are integrated numerically


def normal_posterior(scores: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean, weight, degrees of freedom and scale of the normal-inverse-chi-squared posterior."""
    mean, weight, freedom, scale = PRIOR_MEAN, PRIOR_WEIGHT, PRIOR_FREEDOM, PRIOR_SCALE
    for score in scores:
        scale = (freedom * scale + weight / (weight + 1) * (score - mean) ** 2) / (freedom + 1)
        mean = (weight * mean + score) / (weight + 1)
        weight, freedom = weight + 1, freedom + 1
    return mean, weight, freedom, scale


def normal_draw(scores: Sequence[float], uniforms: Sequence[float]) -> float:
    """A draw of the mean: the variance from its scaled inverse chi-squared law, then the mean given it."""
    mean, weight, freedom, scale = normal_posterior(scores)
    variance = freedom * scale / float(special.chdtri(freedom, 1 - uniforms[0]))
    return mean + float(np.sqrt(variance / weight) * special.ndtri(uniforms[1]))


def beta_draw(scores: Sequence[float], uniforms: Sequence[float]) -> float:
    """A draw of the mean under a Beta law that counts each score as so much of a success."""
    successes = PRIOR_SUCCESSES + sum(scores)
    failures = PRIOR_FAILURES + sum(1 - score for score in scores)
    return float(special.betaincinv(successes, failures, uniforms[0]))


def mixed_model_draws(groups: Sequence[Sequence[float]], uniforms: Sequence[float]) -> tuple[float, list[float]]:
    """A joint draw of the expected score of a new group and of each group seen.

    The model: score = group + noise, group ~ N(mu, group spread), mu ~ N(0.5, 0.2), the two spreads half-normal. Given
    the spreads all is Gaussian, so their posterior is computed on a grid and the rest drawn from its exact law.

    Args:
        groups: scores of each group; none may be empty.
        uniforms: 3 numbers and one more a group.
    """
    spreads, noises = _grid()
    log_weights = _log_evidence(groups, spreads[:, None], noises[None, :])
    heights = np.cumsum(np.exp(log_weights - log_weights.max()).ravel())
    cell = min(int(np.searchsorted(heights, uniforms[0] * heights[-1], side="right")), heights.size - 1)
    spread, noise = spreads[cell // GRID], noises[cell % GRID]
    normal = special.ndtri(np.asarray(uniforms[1:], dtype=np.float64))
    sizes, means = _summary(groups)
    precision, centre = _overall(sizes, means, spread, noise)
    overall = centre + normal[0] / np.sqrt(precision)
    own = 1 / spread**2 + sizes / noise**2
    centres = (overall / spread**2 + sizes * means / noise**2) / own
    draws = centres + normal[2 : 2 + len(groups)] / np.sqrt(own)
    return float(overall + spread * normal[1]), [float(draw) for draw in draws]


@lru_cache(maxsize=1)
def _grid() -> tuple[FloatArray, FloatArray]:
    """Quantiles of a half-normal law in the middle of equal shares, times each prior's scale."""
    quantiles = np.asarray(special.ndtri(0.5 + (np.arange(GRID) + 0.5) / (2 * GRID)), dtype=np.float64)
    return GROUP_SPREAD * quantiles, NOISE * quantiles


def _summary(groups: Sequence[Sequence[float]]) -> tuple[FloatArray, FloatArray]:
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    return sizes, np.array([sum(group) / len(group) for group in groups], dtype=np.float64)


def _overall(
    sizes: FloatArray, means: FloatArray, spread: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Precision and mean of the overall mean, given the spreads (of any shape)."""
    precision = np.asarray(np.full(np.broadcast(spread, noise).shape, 1 / MEAN_SPREAD**2), dtype=np.float64)
    pull = precision * MEAN
    for size, mean in zip(sizes, means, strict=True):
        share = 1 / (spread**2 + noise**2 / size)
        precision = precision + share
        pull = pull + share * mean
    return precision, pull / precision


def _log_evidence(groups: Sequence[Sequence[float]], spread: FloatArray, noise: FloatArray) -> FloatArray:
    """Log-probability of all scores given the spreads, the means integrated out; up to a constant."""
    sizes, means = _summary(groups)
    precision, centre = _overall(sizes, means, spread, noise)
    total = -0.5 * np.log(precision) - 0.5 * (centre - MEAN) ** 2 / MEAN_SPREAD**2
    for group, size, mean in zip(groups, sizes, means, strict=True):
        variance = spread**2 + noise**2 / size
        within = sum((score - mean) ** 2 for score in group)
        total = total - 0.5 * np.log(variance) - 0.5 * (mean - centre) ** 2 / variance
        total = total - (size - 1) * np.log(noise) - 0.5 * within / noise**2
    return np.asarray(total, dtype=np.float64)
