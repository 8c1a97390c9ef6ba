"""Resampling schemes: pure functions from weights and uniform numbers to the indices of the chosen parents.

Each is unbiased: parent i is chosen ``n * weight_i`` times on average. They differ in the variance they add; Douc and
Cappe (2005), arXiv:cs/0507025, compare them. `conditional` draws from the law of a scheme given that one parent was
chosen, which is what a method that keeps a reference particle needs (Chopin and Singh, 2015, arXiv:1304.1887).
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
    whole, rest = _residual_parts(weights)
    certain = np.repeat(np.arange(n), whole)[:n]
    missing = n - len(certain)
    if missing == 0:
        return certain
    drawn = _invert(rest / rest.sum(), np.sort(uniforms[:missing]))
    return np.sort(np.concatenate([certain, drawn]))


SCHEMES: dict[str, Resampling] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}


def conditional(name: str, weights: FloatArray, kept: int, uniforms: FloatArray, mark: float) -> tuple[IntArray, int]:
    """Parents from the law that the scheme has when a slot chosen at random is known to have parent `kept`.

    Drawing `kept` from the weights and then the rest here is the same as drawing all parents freely.

    Args:
        name: of the scheme.
        weights: [n], sum 1.
        kept: the parent that must be among the chosen.
        uniforms: [n] in (0, 1), as for the scheme itself.
        mark: in (0, 1): where in the kept parent's share of the weight the known slot's draw falls.

    Returns:
        parents [n], sorted, and a slot whose parent is `kept`.
    """
    n = len(weights)
    heights = np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()
    place = heights[kept] + mark * (heights[kept + 1] - heights[kept])  # uniform on the kept parent's share
    fixed = uniforms.copy()
    if name == "systematic":
        fixed[0] = n * place % 1.0
    elif name == "stratified":
        fixed[min(int(n * place), n - 1)] = n * place % 1.0
    elif name == "multinomial":
        fixed[0] = place
    else:
        fixed = _residual_uniforms(weights, kept, uniforms, mark)
    parents = scheme(name)(weights, fixed)
    slots = np.flatnonzero(parents == kept)
    if len(slots) == 0:  # a share too narrow for floating point: put the kept parent where its draw fell
        slots = np.array([min(int(n * place), n - 1)])
        parents[slots[0]] = kept
    return parents, int(slots[0])


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
    """Logarithm of the mean weight; minus infinity if all weights are 0."""
    top = log_weights.max()
    if top == -np.inf:
        return -np.inf
    return float(top + np.log(np.exp(log_weights - top).mean()))


def choose(weights: FloatArray, mark: float) -> int:
    """The index in whose share of the weights a number in (0, 1) falls; never one of weight 0."""
    return int(_invert(np.asarray(weights, dtype=np.float64), np.array([mark]))[0])


def effective_sample_size(weights: FloatArray) -> float:
    """1 / sum of squared weights (Kong, 1992): from 1 to n."""
    return float(1.0 / np.square(weights).sum())


def _residual_parts(weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """Copies that are certain, [n], and what is left of the expected copies, [n]."""
    expected = len(weights) * weights
    whole = np.floor(expected + 1e-9)  # 1e-9: a weight of exactly k/n must not lose a copy to rounding
    return whole.astype(np.int64), np.maximum(expected - whole, 0.0)


def _residual_uniforms(weights: FloatArray, kept: int, uniforms: FloatArray, mark: float) -> FloatArray:
    """Numbers with which `residual` gives the kept parent its slot: a certain copy, or else the first free draw."""
    whole, rest = _residual_parts(weights)
    share = (whole[kept] + rest[kept]) * mark
    if share < whole[kept] or rest[kept] == 0:
        return uniforms
    heights = np.cumsum(rest)
    fixed = uniforms.copy()
    fixed[0] = (heights[kept] - rest[kept] + share - whole[kept]) / heights[-1]
    return fixed


def _invert(weights: FloatArray, marks: FloatArray) -> IntArray:
    heights: npt.NDArray[Any] = np.cumsum(weights)
    found = np.searchsorted(heights / heights[-1], marks, side="right").astype(np.int64)
    return np.minimum(found, len(weights) - 1)  # marks just below 1 may be rounded to it
