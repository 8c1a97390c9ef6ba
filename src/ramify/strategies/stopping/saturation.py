"""Saturation: draw until the expected gain of another answer is no longer worth it.

The curve is that of the test-time scaling performance model (Wang et al., arXiv:2505.20522): with a chance p that one
sample succeeds, F(N) = ceiling (1 - (1 - p)^N), whose next step is ceiling p (1 - p)^N. The paper fits the curve to a
benchmark and solves for its saturation point; here p is estimated from the problem's own answers as they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.stopping.rules import OnlineVote, Saturation
from ramify.strategies.stopping.waves import Waves, standing, vote_until, with_logprobs


@strategy("saturation", kind="approximate", paper="arXiv:2505.20522")
@dataclass(frozen=True)
class SaturationBudget(Method):
    """Majority vote over up to n answers that ends where the scaling curve flattens.

    A sample succeeds, for the estimate of p, when it gives the leading answer: (v1 + 1) / (N + 2) after v1 of N. It
    stops as well where the answers are so scattered that more of them promise little.

    Attributes:
        n: answers at most.
        epsilon: gain below which another sample is not worth drawing.
        ceiling: the accuracy that the curve tends to; 1 takes the gain as a share of it.
        window: launch at least so many at once (what is not needed is cancelled); 0 launches only what has to be drawn.
    """

    cancels: ClassVar[bool] = True
    n: int = 32
    epsilon: float = 0.01
    ceiling: float = 1.0
    window: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n={self.n} does not work: draw at least one answer")
        if not 0 < self.epsilon < 1:
            raise ConfigError(f"epsilon={self.epsilon} does not work: a gain is above 0 and below 1")
        if self.window < 0:
            raise ConfigError(f"window={self.window} does not work: 0 launches only what has to be drawn")
        Saturation(self.epsilon, self.ceiling)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw until the curve is flat."""
        online = OnlineVote(Saturation(self.epsilon, self.ceiling))
        waves = Waves(context, self.n, lambda: max(self.window, online.needed(self.n)), **with_logprobs(context))
        seen, certain = await vote_until(waves.answers(), online, context)
        if certain:
            waves.skip_rest()
        return context.result(seen, standing(online), certain=certain)
