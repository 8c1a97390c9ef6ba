"""Stop rules: when enough answers have been seen. One interface for every vote that can end early.

A rule is a pure function of a `Poll`, which is plain data: a vote can be stored, gone on with, and replayed offline
over a pool. `OnlineVote` is the aggregator that methods hold: `add` a sample and learn whether to stop, and ask for the
`result` at any time.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np

from ramify import registry
from ramify.backends.base import FloatArray
from ramify.errors import ConfigError
from ramify.registry import register
from ramify.strategies.kernel.result import show_answer
from ramify.strategies.votes import tally, vote

_PAGE = "techniques/stop-rules.md"
_NODES = 200  # of the quadrature behind "dirichlet": the two-answer case then agrees with the exact sum to 1e-12


class Poll(msgspec.Struct):
    """The votes so far, in order: all the state that there is.

    Attributes:
        answers: keys as text, as pools store them; None where no answer can be read.
        weights: what each vote weighs, 0 or more.
        merits: how well each sample would stand for its answer; they also break ties.
    """

    answers: list[str | None] = []  # msgspec copies an empty default
    weights: list[float] = []  # msgspec copies an empty default
    merits: list[float] = []  # msgspec copies an empty default

    def counts(self) -> list[int]:
        """How often each answer was given, the most frequent first."""
        return sorted((round(count) for count in tally(self.answers).values()), reverse=True)

    def with_more(self, answer: str | None, copies: int) -> Poll:
        """This poll and so many further samples with that answer, of weight 1."""
        more = [1.0] * copies
        return Poll(self.answers + [answer] * copies, self.weights + more, self.merits + more)


@runtime_checkable
class StopRule(Protocol):
    """Decides from the votes so far. Its factory takes its threshold as `tau`."""

    @property
    def tau(self) -> float:
        """The threshold."""
        ...

    def stops(self, poll: Poll) -> bool:
        """Whether no further sample is needed."""
        ...


class OnlineVote:
    """A vote that says when to stop.

    Args:
        rule: the stop rule.
        poll: where to go on; an empty one by default.
    """

    def __init__(self, rule: StopRule, poll: Poll | None = None) -> None:
        self.rule = rule
        self.poll = poll if poll is not None else Poll()

    def add(self, answer: Hashable | None, weight: float = 1.0, merit: float = 0.0) -> bool:
        """Count one sample; returns whether to stop."""
        self.poll.answers.append(show_answer(answer))
        self.poll.weights.append(float(weight))
        self.poll.merits.append(float(merit))
        return self.rule.stops(self.poll)

    def result(self) -> int | None:
        """Index of the sample that stands for the winner (see `votes.vote`); None if none has an answer."""
        return vote(self.poll.answers, self.poll.weights, self.poll.merits)

    def needed(self, limit: int) -> int:
        """Samples that have to be drawn whatever they turn out to be, from 1 to `limit`.

        That is the least number of further samples after which the rule could stop, when all of them agree with the
        leader or with none.
        """
        winner = self.result()
        leader = "" if winner is None else self.poll.answers[winner]
        for count in range(1, limit):
            if any(self.rule.stops(self.poll.with_more(answer, count)) for answer in (leader, None)):
                return count
        return limit


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a rule would have done with stored samples.

    Attributes:
        read: how many of them it took.
        winner: the index of its answer; None if no answer could be read.
        stopped: whether it stopped by itself; False if the samples came to their end.
    """

    read: int
    winner: int | None
    stopped: bool


def replay(
    rule: StopRule,
    answers: Iterable[Hashable | None],
    weights: Sequence[float] | None = None,
    merits: Sequence[float] | None = None,
) -> Replayed:
    """Run a rule over samples in the order in which they were launched, for example those of a pool's problem."""
    online = OnlineVote(rule)
    stopped = False
    for i, answer in enumerate(answers):
        stopped = online.add(answer, 1.0 if weights is None else weights[i], 0.0 if merits is None else merits[i])
        if stopped:
            break
    return Replayed(len(online.poll.answers), online.result(), stopped)


def stop_rule(name: str, tau: float) -> StopRule:
    """The registered rule of that name with a threshold.

    Raises:
        ConfigError: there is no such rule, or the threshold does not work with it.
    """
    made: StopRule = registry.technique("stop rule", name).factory(tau=tau)
    return made


@register("beta", kind="stop rule", trade="approximate", paper="arXiv:2305.11860", page=_PAGE)
@dataclass(frozen=True, slots=True)
class Beta:
    """Stops when the leader is surely ahead of the second: 1 - I_0.5(v1 + 1, v2 + 1) >= tau for the two top counts.

    That is the posterior probability, from a uniform prior, that a vote for one of the two goes to the leader more
    often than not. Answers that cannot be read do not count.

    Attributes:
        tau: probability wanted.
    """

    tau: float = 0.95

    def __post_init__(self) -> None:
        _check_share(self.tau)

    def stops(self, poll: Poll) -> bool:
        """Whether the two top counts are far enough apart."""
        counts = poll.counts()
        return bool(counts) and ahead(counts[0], counts[1] if len(counts) > 1 else 0) >= self.tau


@register("dirichlet", kind="stop rule", trade="approximate", paper="arXiv:2305.11860", page=_PAGE)
@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Stops when the leader is surely the most likely of all answers seen, under a uniform Dirichlet prior over them.

    With one or two answers it is the same as "beta"; with more it waits longer.

    Attributes:
        tau: probability wanted.
    """

    tau: float = 0.95

    def __post_init__(self) -> None:
        _check_share(self.tau)

    def stops(self, poll: Poll) -> bool:
        """Whether the leader is likely enough to be the mode."""
        counts = poll.counts()
        return bool(counts) and leads(counts) >= self.tau


@register("share", kind="stop rule", trade="approximate", page=_PAGE)
@dataclass(frozen=True, slots=True)
class Share:
    """Stops when the leader has a share tau of all samples. One that cannot be read agrees with none.

    Attributes:
        tau: share wanted.
        least: samples before it may stop.
    """

    tau: float = 0.75
    least: int = 2

    def __post_init__(self) -> None:
        _check_share(self.tau)
        _check_least(self.least)

    def stops(self, poll: Poll) -> bool:
        """Whether enough samples agree."""
        counts = poll.counts()
        return len(poll.answers) >= self.least and bool(counts) and counts[0] / len(poll.answers) >= self.tau


@register("confidence-share", kind="stop rule", trade="approximate", paper="arXiv:2503.00031", page=_PAGE)
@dataclass(frozen=True, slots=True)
class ConfidenceShare:
    """Stops when the leader has a share tau of the summed confidence of all samples: max_a sum c / sum c >= tau.

    Attributes:
        tau: share wanted.
        least: samples before it may stop.
    """

    tau: float = 0.75
    least: int = 2

    def __post_init__(self) -> None:
        _check_share(self.tau)
        _check_least(self.least)

    def stops(self, poll: Poll) -> bool:
        """Whether enough confidence is behind one answer."""
        total = math.fsum(poll.weights)
        top = max(tally(poll.answers, poll.weights).values(), default=0.0)
        return len(poll.answers) >= self.least and total > 0 and top / total >= self.tau


@register("saturation", kind="stop rule", trade="approximate", paper="arXiv:2505.20522", page=_PAGE)
@dataclass(frozen=True, slots=True)
class Saturation:
    """Stops when another sample would add less than tau to the curve F(N) = ceiling (1 - (1 - p)^N).

    p is estimated from the samples: the leader's count v1 among N of them gives (v1 + 1) / (N + 2).

    Attributes:
        tau: least gain worth a sample.
        ceiling: what the curve tends to.
    """

    tau: float = 0.01
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        _check_share(self.tau)
        if not 0 < self.ceiling <= 1:
            raise ConfigError(f"ceiling={self.ceiling} does not work: an accuracy is above 0 and at most 1")

    def stops(self, poll: Poll) -> bool:
        """Whether the curve has flattened."""
        total = len(poll.answers)
        top = max(poll.counts(), default=0)
        return total > 0 and marginal_gain((top + 1) / (total + 2), total, self.ceiling) < self.tau


def ahead(first: int, second: int) -> float:
    """1 - I_0.5(first + 1, second + 1): P(p > 1/2) for p ~ Beta(first + 1, second + 1), by its exact sum.

    It is the probability that a fair coin shows heads at most `first` times in first + second + 1 throws.
    """
    throws = first + second + 1
    return float(Fraction(sum(math.comb(throws, heads) for heads in range(first + 1)), 2**throws))


def leads(counts: Sequence[int]) -> float:
    """P(the first answer is the most likely) when the answers' chances are Dirichlet(counts + 1).

    The chances are Gamma variables over their sum, so this is the integral of the first one's density times the
    distribution functions of the others. One answer alone stands against another that was never seen.
    """
    from scipy.special import gammainc, gammaln  # takes a moment to load, and few runs need it

    first, others = counts[0], list(counts[1:]) or [0]
    spread = math.sqrt(first + 1)
    low, high = max(0.0, first + 1 - 10 * spread), first + 1 + 12 * spread + 20
    at, widths = _quadrature()
    x = low + (at + 1) / 2 * (high - low)
    density = np.exp(first * np.log(x) - x - gammaln(first + 1))
    below = np.prod([gammainc(count + 1, x) for count in others], axis=0)
    return float((widths * density * below).sum() * (high - low) / 2)


@cache
def _quadrature() -> tuple[FloatArray, FloatArray]:
    at, widths = np.polynomial.legendre.leggauss(_NODES)
    return at, widths


def marginal_gain(p: float, drawn: int, ceiling: float = 1.0) -> float:
    """F(drawn + 1) - F(drawn) = ceiling p (1 - p)^drawn of the curve F(N) = ceiling (1 - (1 - p)^N)."""
    return ceiling * p * (1 - p) ** drawn


def _check_share(tau: float) -> None:
    if not 0 < tau <= 1:
        raise ConfigError(f"tau={tau} does not work: the threshold of a stop rule is above 0 and at most 1")


def _check_least(least: int) -> None:
    if least < 1:
        raise ConfigError(f"least={least} does not work: a rule cannot stop before the first sample")
