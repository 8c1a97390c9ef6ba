"""Adaptive consistency: self-consistency that stops once the vote is as good as decided.

Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency", arXiv:2305.11860.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar, Literal

from ramify.backends.base import Capability
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.stopping.race import STRIDE, Runner, by_launch, check_race, finishers
from ramify.strategies.stopping.rules import OnlineVote, stop_rule
from ramify.strategies.stopping.waves import Waves, merit, standing, vote_until, with_logprobs

FAVOURS_SHORT = "order=finish: answers were counted as they finished, which favours short ones"


@strategy("adaptive-consistency", kind="approximate", paper="arXiv:2305.11860")
@dataclass(frozen=True)
class AdaptiveConsistency(Method):
    """Majority vote over up to n answers that ends when a stop rule is satisfied.

    Attributes:
        n: answers at most.
        tau: threshold of the rule; for "beta", the probability that the leader is really ahead of the second.
        rule: name of the stop rule.
        order: "launch" counts the answers in the order in which they were launched, so the vote is one over the first
            so many samples. "finish" races all n and counts them as they come in: faster, and biased to short answers.
        window: launch at least so many at once, ahead of the decision; what turns out not to be needed is cancelled. 0
            launches only what the rule needs in any case, so that nothing is drawn in vain.
        stride: tokens that the branches of a race draw between two looks (order=finish).
    """

    cancels: ClassVar[bool] = True
    n: int = 40
    tau: float = 0.95
    rule: str = "beta"
    order: Literal["launch", "finish"] = "launch"
    window: int = 0
    stride: int = STRIDE

    def __post_init__(self) -> None:
        check_race(self.n, self.stride)
        stop_rule(self.rule, self.tau)
        if self.window < 0:
            raise ConfigError(f"window={self.window} does not work: 0 launches what the rule needs, n all at once")
        if self.window and self.order == "finish":
            raise ConfigError(f"window={self.window} does not work with order=finish, which launches all at once")

    @property
    def requires(self) -> frozenset[Capability]:
        """Going on from a prefix where branches race in strides (order=finish)."""
        return frozenset({Capability.CONTINUE}) if self.order == "finish" else frozenset()

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw and vote until the rule is satisfied."""
        online = OnlineVote(stop_rule(self.rule, self.tau))
        if self.order == "finish":
            return await self._as_they_finish(context, online)
        waves = Waves(context, self.n, lambda: max(self.window, online.needed(self.n)), **with_logprobs(context))
        seen, certain = await vote_until(waves.answers(), online, context)
        if certain:
            waves.skip_rest()
        return context.result(seen, standing(online), certain=certain)

    async def _as_they_finish(self, context: Context, online: OnlineVote) -> Result:
        context.note(FAVOURS_SHORT)
        seen: list[Runner] = []
        certain = False
        async with aclosing(finishers(context, self.n, self.stride, **with_logprobs(context))) as race:
            async for runner in race:
                seen.append(runner)
                certain = online.add(context.answer(runner.node), merit=merit(runner.node))
                context.report(*by_launch(seen, seen[standing(online) or 0]))
                if certain:
                    break
        best = standing(online)
        return context.result(*by_launch(seen, None if best is None else seen[best]), certain=certain)
