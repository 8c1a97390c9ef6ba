"""Instance-adaptive best-of-n: a calibrated process reward says after one step how many answers a problem needs.

Park et al., "Know What You Don't Know: Uncertainty Calibration of Process Reward Models", arXiv:2506.09338. The paper
fine-tunes the reward model by quantile regression and takes a low quantile as the chance p of success, then draws the
least N with 1 - (1 - p)^N >= target. Here an isotonic map does the calibrating, and the low quantile is one over the
first steps of a few answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.registry import ReadsFile
from ramify.scoring.calibration import CalibrationMap
from ramify.scoring.confidence import details_for
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of, finished

UNCALIBRATED = "no calibration map was given: the reward's scores were taken for probabilities"
ROUNDING = 1e-9
"""By which a quotient of two logarithms may miss the whole number that it is."""


@strategy("calibrated-prm", kind="approximate", paper="arXiv:2506.09338", needs=("scorer", "calibration"))
@dataclass(frozen=True)
class CalibratedPRM(Method):
    """Best of as many answers as the problem needs for one of them to be right with the probability wanted.

    The first step of a few answers is drawn and judged; a low quantile of the calibrated scores is taken for the chance
    p that an answer is right. Of the answers begun, the likeliest are finished, and as many more drawn as are missing.

    Attributes:
        n: answers at most.
        first: answers to begin.
        target: probability wanted that at least one answer is right.
        quantile: of the calibrated scores of the first steps; 0 takes the lowest.
        scorer: judges first steps and whole answers; a process reward model by default.
        calibration: file of a `CalibrationMap` fitted to first steps; without one the scores are taken for
            probabilities, which most reward models' are not.
        until: where the first step ends; a line by default.
    """

    n: int = 16
    first: int = 4
    target: float = 0.95
    quantile: float = 0.1
    scorer: Scorer = field(default_factory=ProcessReward)
    calibration: Annotated[str, ReadsFile()] = ""
    until: StepSplitter = field(default_factory=lines)

    def __post_init__(self) -> None:
        if self.n < 1 or self.first < 1:
            raise ConfigError(f"n={self.n}, first={self.first} do not work: draw and begin at least one answer")
        if not 0 < self.target < 1:
            raise ConfigError(f"target={self.target} does not work: a probability between 0 and 1 can be reached")
        if not 0 <= self.quantile <= 1:
            raise ConfigError(f"quantile={self.quantile} does not work: it is from 0 to 1, 0.5 is the median")
        low, high = self.scorer.range
        if not self.calibration and (low < 0 or high > 1):
            raise ConfigError(
                f"{type(self.scorer).__name__} gives scores from {low} to {high}, which are no probabilities: "
                "fit a calibration map to them, or use scorer=prm"
            )
        _ = self.map  # a file that cannot be read is found here

    @cached_property
    def map(self) -> CalibrationMap:
        """From scores of first steps to chances of success."""
        return CalibrationMap.load(self.calibration) if self.calibration else CalibrationMap()

    async def run(self, problem: Problem, context: Context) -> Result:
        """Begin, judge, decide how many, finish, choose."""
        if not self.calibration:
            context.note(UNCALIBRATED)
        root, options = await context.root(), details_for(self.scorer)
        begun = await context.extend([root], min(self.first, self.n), self.until, self.scorer, **options)
        judged = await context.score(begun, self.scorer)
        wanted = samples_needed(low_quantile(self.map(judged), self.quantile), self.target, self.n)
        kept = _likeliest(begun, judged, wanted)
        context.drop([node for node in begun if node not in kept])
        missing = max(0, wanted - len(begun))
        context.skip(self.n - len(begun) - missing)
        going = [node for node in kept if node.open]
        counts = [1] * len(going) + [missing]
        drawing = context.samples([*going, root], counts, scored_by=self.scorer, **options)
        drawn = [node async for node in drawing]
        context.retire(going)
        moved = iter(drawn)
        # In launch order: if those that ended in their first step came first, ties would favour short answers.
        ended = [next(moved, None) if node.open else node for node in kept]
        answers = [node for node in [*ended, *moved] if node is not None]
        scores = await context.score(answers, self.scorer)
        return context.result(answers, best_of(scores, finished(answers)), scores=scores)


def samples_needed(p: float, target: float, limit: int) -> int:
    """The least N with 1 - (1 - p)^N >= target, from 1 to `limit`."""
    if p >= target:
        return 1
    if p <= 0:
        return limit
    return min(limit, math.ceil(math.log1p(-target) / math.log1p(-p) - ROUNDING))


def low_quantile(chances: FloatArray, quantile: float) -> float:
    """The quantile of a few numbers, on the safe side: one of them, and rather the lower neighbour."""
    return float(np.quantile(chances, quantile, method="lower"))


def _likeliest(nodes: Sequence[Node], scores: FloatArray, count: int) -> list[Node]:
    """The nodes of the highest scores, the first of equals, in launch order."""
    best = sorted(range(len(nodes)), key=lambda i: -scores[i])[:count]
    return [nodes[i] for i in sorted(best)]
