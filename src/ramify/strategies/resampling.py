"""Resampling schemes: pure functions from weights and uniform numbers to the indices of the chosen parents.

Each is unbiased: parent i is chosen ``n * weight_i`` times on average. They differ in the variance they add; Douc and
Cappe (2005), arXiv:cs/0507025, compare them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ramify.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Resampling = Callable[[FloatArray, FloatArray], IntArray]
"""(weights [n] with sum 1, uniforms [n] in (0, 1)) -> parents [n], sorted."""


def multinomial(weights: FloatArray, uniforms: FloatArray) -> IntArray:
    """n independent draws (Gordon et al., 1993)."""
    return _invert(weights, np.sort(uniforms))


def stratified(weights: FloatArray, uniforms: FloatArray) -> IntArray:
    """One draw in each of n equal strata (Kitagawa, 1996)."""
    n = len(weights)
    return _invert(weights, (np.arange(n) + uniforms) / n)


def systematic(weights: FloatArray, uniforms: FloatArray) -> IntArray:
    """One draw, shared by all strata (Carpenter et al., 1999): equal weights choose every parent exactly once."""
    n = len(weights)
    return _invert(weights, (np.arange(n) + uniforms[0]) / n)


def residual(weights: FloatArray, uniforms: FloatArray) -> IntArray:
    """The whole part of ``n * weight`` for certain, the rest by independent draws (Liu and Chen, 1998)."""
    n = len(weights)
    expected = n * weights
    whole = np.floor(expected + 1e-9)  # 1e-9: a weight of exactly k/n must not lose a copy to rounding
    certain = np.repeat(np.arange(n), whole.astype(np.int64))[:n]
    missing = n - len(certain)
    if missing == 0:
        return certain
    rest = np.maximum(expected - whole, 0.0)
    drawn = _invert(rest / rest.sum(), np.sort(uniforms[:missing]))
    return np.sort(np.concatenate([certain, drawn]))


SCHEMES: dict[str, Resampling] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}


def scheme(name: str) -> Resampling:
    """The scheme of that name. Raises `ConfigError` for an unknown one."""
    if name not in SCHEMES:
        raise ConfigError(f"resampling={name!r} does not work: choose from {', '.join(SCHEMES)}")
    return SCHEMES[name]


def softmax(log_weights: FloatArray) -> FloatArray:
    """Normalised weights.

    Raises:
        ConfigError: no weight is above 0.
    """
    top = log_weights.max()
    if not np.isfinite(top):
        raise ConfigError(f"log-weights {log_weights} cannot be normalised: at least one must be finite, none infinite")
    weights = np.exp(log_weights - top)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def log_mean(log_weights: FloatArray) -> float:
    """Logarithm of the mean weight."""
    top = log_weights.max()
    return float(top + np.log(np.exp(log_weights - top).mean()))


def effective_sample_size(weights: FloatArray) -> float:
    """1 / sum of squared weights (Kong, 1992): from 1 to n."""
    return float(1.0 / np.square(weights).sum())


def _invert(weights: FloatArray, marks: FloatArray) -> IntArray:
    heights: npt.NDArray[Any] = np.cumsum(weights)
    return np.searchsorted(heights / heights[-1], marks, side="right").astype(np.int64)
