"""MUR: a step that is more uncertain than the steps before it is drawn several times (arXiv:2507.14958)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of


@strategy("mur", kind="approximate", paper="arXiv:2507.14958", needs=("scorer", Capability.LOGPROBS))
@dataclass(frozen=True)
class MomentumUncertainty(Method):
    """One chain of steps; only where the model becomes unsure are there several candidates for the next one.

    The uncertainty `u` of a step is the mean negative log-probability of its tokens, and the momentum ``m`` a running
    mean of it: ``m = momentum * m + (1 - momentum) * u``, from 0. Behind the first step, a step with
    ``exp(u) > exp(m) / gamma`` is widened: others are drawn beside it, `k` in all, and the scorer's best one is taken
    (the first of equals), whose uncertainty enters the momentum.

    Attributes:
        size: the field that a budget is fitted by.
        k: candidates of a widened step, the first draw among them.
        scorer: chooses among them; a process reward model by default.
        until: where a step ends; a line by default.
        momentum: share of the past in the running mean.
        gamma: how readily steps are widened: the lower, the fewer.
        steps: steps at most.
    """

    size: ClassVar[str] = "k"

    k: int = 4
    scorer: Scorer = field(default_factory=ProcessReward)
    until: StepSplitter = field(default_factory=lines)
    momentum: float = 0.9
    gamma: float = 0.9
    steps: int = 64

    def __post_init__(self) -> None:
        if self.k < 1 or self.steps < 1:
            raise ConfigError(f"k={self.k}, steps={self.steps} do not work: both must be at least 1")
        if not 0 <= self.momentum < 1 or not 0 < self.gamma <= 1:
            raise ConfigError(
                f"momentum={self.momentum}, gamma={self.gamma} do not work: momentum is from 0 to below 1, "
                "gamma above 0 and at most 1"
            )

    @property
    def requires(self) -> frozenset[Capability]:
        """Log-probabilities of drawn tokens, and what the scorer needs."""
        return super().requires | {Capability.LOGPROBS}

    async def run(self, problem: Problem, context: Context) -> Result:
        """Step by step, widening where uncertainty rises."""
        chain = await context.root()
        past = 0.0
        for step in range(self.steps):
            (drawn,) = await context.extend([chain], 1, self.until, logprobs=1)
            context.report([drawn], 0)
            if step > 0 and self.widens(uncertainty(drawn), past):
                drawn = await self._widen(context, chain, drawn)
            context.retire([chain])
            chain = drawn
            past = self.momentum * past + (1 - self.momentum) * uncertainty(chain)
            context.report([chain], 0)
            if not chain.open:
                break
        return context.result([chain], 0)

    def widens(self, now: float, past: float) -> bool:
        """Whether a step of this uncertainty is widened: ``exp(now) > exp(past) / gamma``."""
        return self.k > 1 and now > past - math.log(self.gamma)

    async def _widen(self, context: Context, chain: Node, first: Node) -> Node:
        others = await context.extend([chain], self.k - 1, self.until, scored_by=self.scorer, logprobs=1)
        candidates = [first, *others]
        scores = await context.score(candidates, self.scorer)
        best = best_of(scores, range(len(candidates))) or 0
        context.drop(node for i, node in enumerate(candidates) if i != best)
        return candidates[best]


def uncertainty(step: Node) -> float:
    """Mean negative log-probability of the tokens that a step drew; 0 if it drew none."""
    details = step.details
    return -math.fsum(detail.logprob for detail in details) / len(details) if details else 0.0
