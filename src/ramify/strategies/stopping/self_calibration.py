"""Self-calibration: the model's own confidence in each answer decides when to stop and how votes weigh.

Huang et al., "Efficient Test-Time Scaling via Self-Calibration", arXiv:2503.00031. The paper trains the model so that
its confidence is calibrated; here a calibration map fitted to a pool can stand in for that.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from ramify.backends.base import Node
from ramify.errors import ConfigError
from ramify.registry import ReadsFile
from ramify.scoring.calibration import CalibratedScorer, CalibrationMap
from ramify.scoring.confidence import details_for
from ramify.scoring.p_true import PTrue
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.stopping.rules import ConfidenceShare, OnlineVote
from ramify.strategies.stopping.waves import Waves
from ramify.strategies.votes import best_of, finished

LEAST = 2
"""Answers before their confidence can decide a vote: the share of a single one is always 1."""


@strategy("self-calibration", kind="approximate", paper="arXiv:2503.00031", needs=("scorer",))
@dataclass(frozen=True)
class SelfCalibration(Method):
    """Up to n answers, each with a confidence in [0, 1] that says when to stop.

    Attributes:
        n: answers at most.
        mode: "early-exit" takes the first answer in launch order whose confidence is tau or more, else the one with the
            highest. "asc" stops when one answer has a share tau of the summed confidence of at least two, and "vote"
            draws all n; both take the answer with the largest sum.
        tau: the threshold.
        scorer: gives the confidence; P(true) by default.
        calibration: file of a `CalibrationMap` that turns its scores into probabilities; none takes them as they are.
        window: launch at least so many at once (what is not needed is cancelled); 0 launches only what has to be drawn.
    """

    cancels: ClassVar[bool] = True
    n: int = 16
    mode: Literal["early-exit", "asc", "vote"] = "early-exit"
    tau: float = 0.75
    scorer: Scorer = field(default_factory=PTrue)
    calibration: Annotated[str, ReadsFile()] = ""
    window: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n={self.n} does not work: draw at least one answer")
        if not 0 < self.tau <= 1:
            raise ConfigError(f"tau={self.tau} does not work: a confidence is above 0 and at most 1")
        if self.window < 0:
            raise ConfigError(f"window={self.window} does not work: 0 launches only what has to be drawn")
        low, high = self.confidence.range
        if low < 0 or high > 1:
            raise ConfigError(
                f"{type(self.scorer).__name__} gives scores from {low} to {high}, which are no confidence: "
                "fit a calibration map to them, or use scorer=p-true"
            )

    @cached_property
    def confidence(self) -> Scorer:
        """The scorer, calibrated if a map is given."""
        return CalibratedScorer(self.scorer, CalibrationMap.load(self.calibration)) if self.calibration else self.scorer

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw, ask for the confidence, and stop when it suffices."""
        online = OnlineVote(ConfidenceShare(self.tau, LEAST))
        waves = Waves(
            context, self.n, lambda: self._wave(online), scored_by=self.confidence, **details_for(self.scorer)
        )
        seen: list[Node] = []
        scores: list[float] = []
        certain = False
        async with aclosing(waves.answers()) as answers:
            async for node in answers:
                (score,) = map(float, await context.score([node], self.confidence))
                seen.append(node)
                scores.append(score)
                share_reached = online.add(context.answer(node), weight=score, merit=score)
                context.report(seen, self._best(seen, scores, online, context), scores=scores)
                certain = share_reached if self.mode == "asc" else self._exits(node, score, context)
                if certain:
                    waves.skip_rest()
                    break
        return context.result(seen, self._best(seen, scores, online, context), scores=scores, certain=certain)

    def _wave(self, online: OnlineVote) -> int:
        needed = {"early-exit": 1, "asc": online.needed(self.n), "vote": self.n}
        return max(self.window, needed[self.mode])

    def _exits(self, node: Node, score: float, context: Context) -> bool:
        whole = node.finish_reason == "stop" and context.answer(node) is not None
        return self.mode == "early-exit" and whole and score >= self.tau

    def _best(self, seen: list[Node], scores: list[float], online: OnlineVote, context: Context) -> int | None:
        """The vote's winner, or the surest answer: the one that exits is that, for all before it were below tau."""
        winner = None if self.mode == "early-exit" else online.result()
        if winner is not None:
            return winner
        readable = [i for i in finished(seen) if context.answer(seen[i]) is not None]
        return best_of(scores, readable or finished(seen))
