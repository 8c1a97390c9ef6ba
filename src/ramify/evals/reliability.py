"""How far a scorer's probabilities are from what happened, over a stored pool: ECE and Brier score.

With a calibration map it says what the map makes of the scores; a fair number comes from problems that the map was not
fitted to, so `halves` splits a pool by problem.
"""

from __future__ import annotations

from ramify.errors import ConfigError
from ramify.evals.pools import Pool, Sample
from ramify.evals.selectors import score_of
from ramify.randomness import BranchKey, uniform_counters
from ramify.scoring.calibration import BINS, CalibrationMap, Reliability, reliability
from ramify.scoring.ensemble import Ensemble
from ramify.scoring.scorers import Scorer


def pool_reliability(
    pool: Pool, scorer: Scorer, calibration: CalibrationMap | None = None, bins: int = BINS
) -> Reliability:
    """ECE and Brier score of a scorer's scores, behind a map if one is given, over all samples of a pool.

    Raises:
        ConfigError: the pool does not hold what the scorer reads, or the scores are no probabilities and there is no
            map.
    """
    samples = [sample for samples in pool.samples.values() for sample in samples]
    scores = pool_scores(samples, scorer)
    return reliability(
        scores if calibration is None else calibration(scores), [sample.correct for sample in samples], bins
    )


def fit_map(pool: Pool, scorer: Scorer) -> CalibrationMap:
    """The isotonic map from a scorer's scores to the chance of being right, fitted to all samples of a pool.

    Raises:
        ConfigError: the pool is empty or does not hold what the scorer reads.
    """
    samples = [sample for samples in pool.samples.values() for sample in samples]
    return CalibrationMap.fit(pool_scores(samples, scorer), [sample.correct for sample in samples])


def halves(pool: Pool, seed: int = 0) -> tuple[Pool, Pool]:
    """A pool's problems in two, at random: one part to fit a map to, and one to report on."""
    draws = uniform_counters(BranchKey.root(seed, "halves"), len(pool.samples))
    ordered = [name for _, name in sorted(zip(draws.tolist(), pool.samples, strict=True))]
    first = set(ordered[: len(ordered) // 2])
    return (
        Pool(pool.header, {name: samples for name, samples in pool.samples.items() if name in first}),
        Pool(pool.header, {name: samples for name, samples in pool.samples.items() if name not in first}),
    )


def pool_scores(samples: list[Sample], scorer: Scorer) -> list[float]:
    """A scorer's numbers for stored samples. Raises `ConfigError` where the pool does not hold what it reads."""
    if isinstance(scorer, Ensemble):
        raise ConfigError("an ensemble is not stored in a pool: report on each member, with its map")
    return [score_of(scorer, sample) for sample in samples]
