"""Doubling: self-consistency in batches of 2, 2, 4, 8, ...; after each, stop if enough of the answers agree."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.stopping.rules import OnlineVote, Share
from ramify.strategies.stopping.waves import Waves, standing, vote_until, with_logprobs


@strategy("doubling", kind="approximate")
@dataclass(frozen=True)
class Doubling(Method):
    """Majority vote over 2, 4, 8, ... answers, as many as it takes until a share tau of them agrees.

    A batch as large as all before it runs whole, so nothing is cancelled and few waits are needed: log2(n) at most.

    Attributes:
        n: answers at most.
        tau: share of the answers drawn that has to agree; one that cannot be read agrees with none.
        first: answers of the first batch.
    """

    n: int = 32
    tau: float = 0.75
    first: int = 2

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n={self.n} does not work: draw at least one answer")
        if self.first < 2:
            raise ConfigError(f"first={self.first} does not work: it takes two answers to agree")
        Share(self.tau)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Double until enough agree."""
        online = OnlineVote(Share(self.tau, least=self.first))
        waves = Waves(context, self.n, lambda: len(online.poll.answers) or self.first, **with_logprobs(context))
        seen, certain = await vote_until(waves.answers(), online, context, may_stop=lambda: waves.between)
        if certain:
            waves.skip_rest()
        return context.result(seen, standing(online), certain=certain)
