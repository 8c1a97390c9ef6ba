"""Self-consistency: draw n answers, take the one most of them agree on (Wang et al., arXiv:2203.11171)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.selection.ballots import Ballot, ballots_of
from ramify.strategies.votes import vote


@strategy("self-consistency", kind="approximate", paper="arXiv:2203.11171")
@dataclass(frozen=True)
class SelfConsistency(Method):
    """Majority vote over n independent answers; an answer that cannot be read does not vote.

    Ties go to the answer whose samples the model was surer of (sum of mean log-probabilities, where the backend gives
    them), then to the one seen first in launch order.

    Attributes:
        n: answers to draw.
    """

    n: int = 16

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"n={self.n} does not work: draw at least one answer")

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw, and keep the vote up to date as answers come in launch order."""
        logprobs = 0 if Capability.LOGPROBS in context.capabilities else None
        answers: list[Node] = []
        async with aclosing(context.samples([await context.root()], self.n, logprobs=logprobs)) as drawn:
            async for node in drawn:
                answers.append(node)
                context.report(answers, majority(answers, context))
        return context.result(answers, majority(answers, context))


def majority(nodes: Sequence[Node], context: Context) -> int | None:
    """Index of the answer that stands for the majority; the first node if none has an answer, None without nodes."""
    winner = majority_of(ballots_of(nodes, context))
    return 0 if winner is None and nodes else winner


def majority_of(ballots: Sequence[Ballot]) -> int | None:
    """The same for ballots, whole ones and cut ones that can be read; None if none can."""
    sure = [ballot.mean_logprob for ballot in ballots]
    known = [merit for merit in sure if merit is not None]
    return vote([ballot.answer for ballot in ballots], merits=known if len(known) == len(ballots) else None)
