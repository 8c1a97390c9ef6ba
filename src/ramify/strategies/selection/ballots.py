"""`Ballot`: one candidate as a selector sees it, whether it was just drawn or comes from a stored pool.

Every selector over a finished pool is a pure function of ballots, so that a method and its replay offline are one
piece of code.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ramify.backends.base import Node
from ramify.errors import ConfigError
from ramify.sampling import TokenIds
from ramify.strategies.kernel.context import Context
from ramify.strategies.votes import finished_places


@dataclass(frozen=True, slots=True)
class Ballot:
    """One candidate.

    Attributes:
        answer: the key of its answer; None if none can be read, which never votes.
        text, tokens: the whole of it (ids empty where a backend has none).
        num_tokens: how many tokens were drawn.
        logprob: sum of their log-probabilities, where they are known.
        finished: whether it came to its end by itself.
    """

    answer: Hashable | None
    text: str = ""
    tokens: TokenIds = ()
    num_tokens: int = 0
    logprob: float | None = None
    finished: bool = True

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability a token, 0 at most, where it is known; 0 for no token."""
        if self.logprob is None:
            return None
        return min(0.0, self.logprob / self.num_tokens) if self.num_tokens else 0.0


def ballots_of(nodes: Sequence[Node], context: Context) -> list[Ballot]:
    """The ballots of drawn answers."""
    return [
        Ballot(
            answer=context.answer(node),
            text=node.text,
            tokens=node.tokens,
            num_tokens=node.num_tokens,
            logprob=node.cum_logprob,
            finished=node.finish_reason == "stop",
        )
        for node in nodes
    ]


def standing(ballots: Sequence[Ballot]) -> list[int]:
    """Indices of those a choice is made among: the finished ones, or all if none is (see `votes.finished`)."""
    return finished_places([ballot.finished for ballot in ballots])


def voters(ballots: Sequence[Ballot]) -> list[int]:
    """Of those, the ones whose answer can be read."""
    return [i for i in standing(ballots) if ballots[i].answer is not None]


def check_n(n: int) -> None:
    """Refuse a method that would draw nothing. Raises `ConfigError`."""
    if n < 1:
        raise ConfigError(f"n={n} does not work: draw at least one answer")
