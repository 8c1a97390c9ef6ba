"""Accuracy against tokens as a curve: a saturating law where that fits, else straight lines between what was measured.

The law is ``a - b * (1 + x / c) ** -d``: it starts at ``a - b``, ends at ``a``, and with b below 0 it falls, as voting
does where the most frequent answer is wrong. Which form is used is decided by leaving out each inner point in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramify.errors import ConfigError
from ramify.randomness import FloatArray

FEWEST = 4
"""Points that a law is fitted to: it has four parameters, two of them on a grid."""
_SCALES = np.logspace(-2, 1, 13)
"""Candidates for c, in units of the largest number of tokens."""
_POWERS = np.array([0.25, 0.5, 1.0, 2.0, 4.0])


@dataclass(frozen=True, slots=True)
class Law:
    """``a - b * (1 + x / c) ** -d``, never outside 0 to 1.

    Attributes:
        a, b, c, d: its parameters; c in tokens, c and d above 0.
    """

    a: float
    b: float
    c: float
    d: float

    def at(self, tokens: float) -> float:
        """The accuracy at so many tokens."""
        return min(1.0, max(0.0, self.a - self.b * math.pow(1.0 + tokens / self.c, -self.d)))


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Straight lines over the logarithm of the tokens, level beyond the ends.

    Attributes:
        tokens: rising, above 0.
        accuracies: one each.
    """

    tokens: tuple[float, ...]
    accuracies: tuple[float, ...]

    def at(self, tokens: float) -> float:
        """The accuracy at so many tokens."""
        return float(np.interp(np.log(max(tokens, self.tokens[0])), np.log(self.tokens), self.accuracies))


@dataclass(frozen=True, slots=True)
class Curve:
    """A fitted curve.

    Attributes:
        form: the law, or the interpolation.
        left_out: root mean square error at inner points that were left out; NaN for fewer than `FEWEST` + 1 points.
        tokens: the range that was measured: beyond it the curve guesses.
    """

    form: Law | Interpolation
    left_out: float
    tokens: tuple[float, float]

    def at(self, tokens: float) -> float:
        """The accuracy at so many tokens, 0 to 1."""
        return self.form.at(tokens)

    @property
    def name(self) -> str:
        """Which form it has."""
        return "law" if isinstance(self.form, Law) else "interpolation"


def fit_curve(tokens: Sequence[float] | FloatArray, accuracies: Sequence[float] | FloatArray) -> Curve:
    """The curve through points of one method; the law where it predicts left-out points at least as well.

    Args:
        tokens: above 0, in any order, none twice.
        accuracies: one each, 0 to 1.

    Raises:
        ConfigError: there is no point, the lengths differ, or a number is out of its range.
    """
    x, y = np.asarray(tokens, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not x.size or len(np.unique(x)) < x.size:
        raise ConfigError(f"{x.size} token counts and {y.size} accuracies: a curve needs one of each, no count twice")
    if not (x > 0).all() or not ((y >= 0) & (y <= 1)).all():
        raise ConfigError("a curve's tokens are above 0 and its accuracies from 0 to 1")
    order = np.argsort(x)
    x, y = x[order], y[order]
    ends = (float(x[0]), float(x[-1]))
    if x.size <= FEWEST:
        return Curve(_interpolation(x, y), float("nan"), ends)
    law, straight = _left_out(x, y, _law), _left_out(x, y, _interpolation)
    # A law also smooths what is noise at the points themselves, so it has the benefit of the doubt.
    return Curve(_law(x, y), law, ends) if law <= straight + 1e-9 else Curve(_interpolation(x, y), straight, ends)


def _left_out(x: FloatArray, y: FloatArray, fitted: Callable[[FloatArray, FloatArray], Law | Interpolation]) -> float:
    errors = []
    for place in range(1, x.size - 1):
        kept = np.arange(x.size) != place
        errors.append(fitted(x[kept], y[kept]).at(float(x[place])) - float(y[place]))
    return float(np.sqrt(np.mean(np.square(errors))))


def _interpolation(x: FloatArray, y: FloatArray) -> Interpolation:
    return Interpolation(tuple(map(float, x)), tuple(map(float, y)))


def _law(x: FloatArray, y: FloatArray) -> Law:
    """Least squares: a and b have a closed form for each c and d of a grid."""
    scales = np.repeat(_SCALES * x[-1], len(_POWERS))
    powers = np.tile(_POWERS, len(_SCALES))
    basis = (1.0 + x[None, :] / scales[:, None]) ** -powers[:, None]
    centred = basis - basis.mean(axis=1, keepdims=True)
    slope = (centred @ (y - y.mean())) / np.maximum((centred**2).sum(axis=1), 1e-12)
    end = np.clip(y.mean() - slope * basis.mean(axis=1), 0.0, 1.0)  # no law ends outside of what can be
    slope = (basis * (y - end[:, None])).sum(axis=1) / (basis**2).sum(axis=1)
    errors = ((end[:, None] + slope[:, None] * basis - y) ** 2).sum(axis=1)
    best = int(np.argmin(errors))
    return Law(float(end[best]), float(-slope[best]), float(scales[best]), float(powers[best]))
