"""Calibration: from scores to probabilities of being right, learnt from answers whose correctness is known.

A `CalibrationMap` is isotonic: it never changes the order of two scores. It is fitted to a stored pool or to the
candidates of an evaluation, kept as JSON, and put around any scorer with `CalibratedScorer`. `reliability` says how
far probabilities are off; report it on problems that the map was not fitted to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from ramify.backends.base import Backend, Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.p_true import PTrue
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch, Scorer, checked_scores

BINS = 10
"""Bins of the calibration error: equally wide over [0, 1], as is usual for it."""


class CalibrationMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A map from scores to probabilities that never falls: straight between its knots, level outside of them.

    Attributes:
        scores: where the knots stand, rising.
        probabilities: its value at each, in [0, 1], never falling.
        fitted_to: how many answers it was fitted to; 0 for the identity.

    Raises:
        ConfigError: the knots are no such map.
    """

    scores: tuple[float, ...] = (0.0, 1.0)
    probabilities: tuple[float, ...] = (0.0, 1.0)
    fitted_to: int = 0

    def __post_init__(self) -> None:
        scores, probabilities = np.array(self.scores), np.array(self.probabilities)
        if len(scores) != len(probabilities) or len(scores) == 0:
            raise ConfigError(f"{len(scores)} scores and {len(probabilities)} probabilities: a map has one for each")
        rising = (np.diff(scores) > 0).all() and (np.diff(probabilities) >= 0).all()
        if not (np.isfinite(scores).all() and rising and probabilities[0] >= 0 and probabilities[-1] <= 1):
            raise ConfigError("the knots of a calibration map must rise in score, and from 0 to 1 in probability")

    @classmethod
    def fit(cls, scores: Sequence[float] | FloatArray, correct: Sequence[bool]) -> CalibrationMap:
        """The isotonic map of least squared error (pool adjacent violators).

        Args:
            scores: [answers] finite.
            correct: [answers] whether each was right.

        Raises:
            ConfigError: there are none, the lengths differ or a score is not finite.

        Paper: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates"
        (KDD 2002).
        """
        values, right = _checked(scores, correct)
        levels, place = np.unique(values, return_inverse=True)
        counts = np.bincount(place, minlength=len(levels)).astype(np.float64)
        blocks = _pooled(np.bincount(place, weights=right, minlength=len(levels)) / counts, counts)
        knots: dict[float, float] = {}
        start = 0
        for mean, _, width in blocks:  # a block is level: its two ends are enough
            knots[float(levels[start])] = knots[float(levels[start + width - 1])] = mean
            start += width
        return cls(tuple(knots), tuple(knots.values()), len(values))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CalibrationMap:
        """Read what `save` wrote.

        Raises:
            ConfigError: there is no such file, or it holds no map.
        """
        try:
            return msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{os.fspath(path)} is no calibration map ({error}): write one with save()") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON."""
        Path(path).write_bytes(msgspec.json.encode(self) + b"\n")

    def __call__(self, scores: Sequence[float] | FloatArray) -> FloatArray:
        """Probabilities of scores, [n] float64."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.probabilities)


IDENTITY = CalibrationMap()
"""Takes scores in [0, 1] for the probabilities they claim to be."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far probabilities are from what happened.

    Attributes:
        count: answers looked at.
        ece: expected calibration error: the mean distance, over the answers, of a bin's accuracy from its mean
            probability.
        brier: mean squared distance of the probability from the outcome.
        accuracy, confidence: mean outcome and mean probability.
    """

    count: int
    ece: float
    brier: float
    accuracy: float
    confidence: float


def reliability(probabilities: Sequence[float] | FloatArray, correct: Sequence[bool], bins: int = BINS) -> Reliability:
    """Calibration error and Brier score of probabilities in [0, 1].

    Raises:
        ConfigError: there are none, the lengths differ, or one is no probability.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins} does not work: use one or more")
    values, right = _checked(probabilities, correct)
    if values.min() < 0 or values.max() > 1:
        raise ConfigError("scores outside [0, 1] are no probabilities: fit a CalibrationMap to them first")
    place = np.minimum((values * bins).astype(np.intp), bins - 1)
    gaps = np.bincount(place, weights=right - values, minlength=bins)
    return Reliability(
        count=len(values),
        ece=float(np.abs(gaps).sum() / len(values)),
        brier=float(((right - values) ** 2).mean()),
        accuracy=float(right.mean()),
        confidence=float(values.mean()),
    )


@dataclass(frozen=True, slots=True)
class CalibratedScorer:
    """A scorer whose scores go through a calibration map.

    Attributes:
        scorer: the scorer underneath.
        map: from its scores to probabilities; the identity by default.

    Raises:
        ConfigError: the identity stands behind a scorer whose range is not [0, 1].
    """

    scorer: Scorer = field(default_factory=PTrue)
    map: CalibrationMap = IDENTITY

    def __post_init__(self) -> None:
        low, high = self.scorer.range
        if self.map == IDENTITY and not (low >= 0 and high <= 1):
            raise ConfigError(
                f"{type(self.scorer).__name__} gives scores from {low} to {high}, which are no probabilities: "
                "fit a CalibrationMap to them"
            )

    @property
    def needs(self) -> frozenset[Capability]:
        """What the scorer underneath needs."""
        return self.scorer.needs

    @property
    def logprobs(self) -> int:
        """Most likely tokens that the scorer underneath reads at each place."""
        return int(getattr(self.scorer, "logprobs", 0))

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest probability of the map."""
        return (self.map.probabilities[0], self.map.probabilities[-1])

    def cost(self, reading: Reading) -> int:
        """What the scorer underneath costs."""
        return self.scorer.cost(reading)

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One probability a node. Raises `ScorerError` for scores that break the contract: the map would hide it."""
        batch = await checked_scores(self.scorer, nodes, problem, backend)
        return ScoreBatch(self.map(batch.values), batch.num_tokens)


def _pooled(means: FloatArray, counts: FloatArray) -> list[tuple[float, float, int]]:
    """Blocks (mean, weight, number of levels) whose means rise, from levels by rising score."""
    blocks: list[tuple[float, float, int]] = []
    for mean, count in zip(means.tolist(), counts.tolist(), strict=True):
        block = (mean, count, 1)
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            weight = before[1] + block[1]
            block = ((before[0] * before[1] + block[0] * block[1]) / weight, weight, before[2] + block[2])
        blocks.append(block)
    return blocks


def _checked(scores: Sequence[float] | FloatArray, correct: Sequence[bool]) -> tuple[FloatArray, FloatArray]:
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if values.ndim != 1 or values.shape != right.shape or len(values) == 0:
        raise ConfigError(
            f"{values.size} scores and {right.size} outcomes: give one outcome for each, and at least one"
        )
    if not np.isfinite(values).all():
        raise ConfigError("a score is not finite: leave out answers that could not be scored")
    return values, right
