"""A mixture of two Weibull laws, fitted to probabilities given as logarithms.

The logarithm of a Weibull variable follows the smallest-extreme-value law with location ``log scale`` and spread
``1 / shape``; fitting that one is the same maximum-likelihood problem and knows no underflow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

FEWEST = 4
"""Different values below which two components cannot be told apart."""
LEAST_SPREAD = 0.05
"""Of a component, in standard deviations of the data: keeps one from shrinking onto a single value."""
MOST_SPREAD = 20.0
ITERATIONS = 200
TOLERANCE = 1e-9
"""Gain of the mean log-likelihood below which the fit has converged."""


def upper_posterior(logs: FloatArray) -> FloatArray:
    """For each log-probability the posterior probability of the component with the higher mean, [n].

    Ones where no mixture can be fitted (fewer than four different values), so that nothing would be pruned. Depends
    neither on the order of the values nor on a common factor of the probabilities.
    """
    # Rounded, or a common factor would decide which almost equal values are one.
    values, place = np.unique(np.round(logs - logs.max(), 6), return_inverse=True)
    if len(values) < FEWEST:
        return np.ones(len(logs))
    counts = np.bincount(place.reshape(-1), minlength=len(values)).astype(np.float64)
    spread = float(np.sqrt(np.average((values - np.average(values, weights=counts)) ** 2, weights=counts)))
    return fit(values / spread, counts)[place.reshape(-1)]


def fit(values: FloatArray, counts: FloatArray) -> FloatArray:
    """Posterior of the upper component for sorted, scaled values that occur so often, by expectation maximisation.

    Starts from the halves of the values; a maximisation step is exact in location and one Newton step in shape.
    """
    top = values[-1]
    powers = np.stack([np.ones_like(values), values - top, (values - top) ** 2], axis=1)
    half = np.arange(len(values)) >= len(values) / 2
    posterior = np.where(np.stack([~half, half]), 0.9, 0.1)
    shapes, number = np.ones((2, 1)), counts.sum()
    before = -np.inf
    for _ in range(ITERATIONS):
        weights = posterior * counts
        shapes, locations = _maximise(powers, weights, shapes)
        shares = weights.sum(axis=1, keepdims=True) / number
        joint = np.log(shares) + log_density(powers[:, 1], locations, shapes)
        total = np.logaddexp(joint[0], joint[1])
        posterior = np.maximum(np.exp(joint - total), 1e-12)  # an empty component would have no location
        now = float(counts @ total / number)
        if now - before < TOLERANCE:
            break
        before = now
    weights = posterior * counts
    means = (weights @ values) / weights.sum(axis=1)
    return np.asarray(posterior[int(means[1] >= means[0])], dtype=np.float64)


def log_density(values: FloatArray, locations: FloatArray, shapes: FloatArray) -> FloatArray:
    """Of the smallest-extreme-value law, broadcast: ``log k + z - exp(z)`` with ``z = k (value - location)``."""
    z = shapes * (values - locations)
    return np.asarray(np.log(shapes) + z - np.exp(np.minimum(z, 700.0)), dtype=np.float64)


def _maximise(powers: FloatArray, weights: FloatArray, shapes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shapes and locations, [2, 1] each, that raise the weighted likelihood.

    The shape's equation is ``E_k[v] - E[v] = 1 / k``, E_k weighing by ``exp(k v)`` besides; its left side grows with k.

    Args:
        powers: [values, 3]: 1, v and its square, with 0 for the highest v.
        weights: [2, values].
        shapes: [2, 1], from the step before.
    """
    sums = weights @ powers
    tilted = (weights * np.exp(shapes * powers[:, 1])) @ powers
    first = tilted[:, 1:2] / tilted[:, :1]
    variance = np.maximum(tilted[:, 2:] / tilted[:, :1] - first**2, 0.0)
    newton = shapes - (first - sums[:, 1:2] / sums[:, :1] - 1 / shapes) / (variance + 1 / shapes**2)
    shapes = np.minimum(np.maximum(newton, shapes / 2), shapes * 2)
    shapes = np.minimum(np.maximum(shapes, 1 / MOST_SPREAD), 1 / LEAST_SPREAD)
    scales = (weights * np.exp(shapes * powers[:, 1])).sum(axis=1, keepdims=True) / sums[:, :1]
    return shapes, np.log(scales) / shapes
