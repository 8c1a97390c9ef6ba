"""One budget shared by many problems: the next sample goes to the problem that is expected to gain most a token.

Where answers can be checked, a problem's gain is the posterior mean of its solve probability (Beta prior, fitted on a
pool) until it is solved, and nothing from then on. Where they cannot, it is what further votes are expected to add to
the probability that the leading answer really is the model's most frequent one. After Snell et al., arXiv:2408.03314,
and Damani et al., arXiv:2410.04707, which allocate by difficulty before sampling; here the samples themselves tell it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, Protocol

import numpy as np
from scipy.special import betaln

from ramify.errors import ConfigError
from ramify.planning.sources import Draw, Source
from ramify.strategies.stopping.rules import ahead
from ramify.strategies.votes import vote

FIRST = 4
"""Samples of every problem before they are compared."""
WAVE = 16
"""Samples drawn together: a batch that an engine runs at nearly the cost of one."""
HORIZON = 16
"""Votes that an undecided problem is looked ahead by: a single one hardly ever changes the leader."""
_MEANS = np.linspace(0.01, 0.99, 99)
_STRENGTHS = np.logspace(-1.5, 2.5, 81)


@dataclass(slots=True)
class Progress:
    """A problem's samples so far."""

    draws: list[Draw] = field(default_factory=list)

    @property
    def solved(self) -> bool:
        """Whether a sample passed the check."""
        return any(draw.solved for draw in self.draws)

    @property
    def tokens(self) -> int:
        """What they cost."""
        return sum(draw.tokens for draw in self.draws)

    def counts(self) -> tuple[int, int]:
        """Votes of the leading answer and of the second."""
        top = [count for _, count in Counter(d.answer for d in self.draws if d.answer is not None).most_common(2)]
        first, second, *_ = *top, 0, 0
        return first, second

    @property
    def best(self) -> Draw | None:
        """The sample to answer with: one that passed the check, else the likeliest of the leading answer."""
        passed = [draw for draw in self.draws if draw.solved]
        if passed:
            return passed[0]
        winner = vote([draw.answer for draw in self.draws], merits=[draw.merit for draw in self.draws])
        return None if winner is None else self.draws[winner]

    @property
    def answer(self) -> Hashable | None:
        """The answer so far."""
        return None if self.best is None else self.best.answer


class Gain(Protocol):
    """What one more sample of a problem is worth."""

    def gain(self, place: int, progress: Progress) -> float:
        """Expected increase of the right answers, 0 where another sample is useless."""
        ...


@dataclass(frozen=True, slots=True)
class BetaPrior:
    """What is known of a problem's solve probability before its first sample: Beta(a, b).

    Raises:
        ConfigError: a parameter is not above 0.
    """

    a: float = 0.5
    b: float = 0.5

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0):
            raise ConfigError(f"a prior Beta({self.a:g}, {self.b:g}) does not work: both must be above 0")

    @classmethod
    def fit(cls, correct: Sequence[int], drawn: Sequence[int]) -> BetaPrior:
        """The prior under which what was seen of some problems is likeliest, over a grid of means and strengths.

        Raises:
            ConfigError: there is no problem, or more are right than were drawn.
        """
        right, total = np.asarray(correct, dtype=np.float64), np.asarray(drawn, dtype=np.float64)
        if right.shape != total.shape or not right.size or (right > total).any() or (right < 0).any():
            raise ConfigError("a prior is fitted to right and drawn samples of at least one problem")
        a = (_MEANS[:, None] * _STRENGTHS)[..., None]
        b = ((1 - _MEANS)[:, None] * _STRENGTHS)[..., None]
        (right, total), times = np.unique(np.stack([right, total]), axis=1, return_counts=True)
        likelihood = (times * (betaln(a + right, b + total - right) - betaln(a, b))).sum(axis=-1)
        mean, strength = np.unravel_index(int(np.argmax(likelihood)), likelihood.shape)
        return cls(float(a[mean, strength, 0]), float(b[mean, strength, 0]))


@dataclass(frozen=True, slots=True)
class Checked:
    """Gains where a check says whether an answer is right: the chance that the next sample is the first right one.

    Attributes:
        prior: of the solve probability, one for all or one a problem (from a difficulty predictor, say).
    """

    prior: BetaPrior | Sequence[BetaPrior] = field(default_factory=BetaPrior)

    def gain(self, place: int, progress: Progress) -> float:
        """The posterior mean of the solve probability after as many failures; 0 once it is solved."""
        if progress.solved:
            return 0.0
        prior = self.prior if isinstance(self.prior, BetaPrior) else self.prior[place]
        return prior.a / (prior.a + prior.b + len(progress.draws))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Gains where nothing can be checked and the most frequent answer is given.

    The vote between the two leading answers has the posterior Beta(v1 + 1, v2 + 1). What m further votes are expected
    to add to the probability that the more likely of the two leads is counted exactly, and the m of largest gain a vote
    is taken (Frazier and Powell, "Paradoxes in learning and the marginal value of information", 2010). Since answers
    that a model seldom gives are seldom right, the gain counts by the leader's share of the samples.

    Attributes:
        horizon: largest m, 2 or more. A unanimous vote of as many is settled.
    """

    horizon: int = HORIZON

    def __post_init__(self) -> None:
        if self.horizon < 2:
            raise ConfigError(f"horizon={self.horizon} does not work: one vote more decides nothing, look 2 ahead")

    def gain(self, place: int, progress: Progress) -> float:
        """The gain a sample: that of a vote, times the chance that a sample is one, times the leader's share."""
        first, second = progress.counts()
        drawn = len(progress.draws)
        votes, leader = (first + second + 1) / (drawn + 1), (first + 1) / (drawn + 2)
        return leader * votes * vote_gain(first, second, self.horizon)


@cache
def vote_gain(first: int, second: int, horizon: int) -> float:
    """Largest expected gain a vote of 1 to `horizon` further votes between two answers, `first` >= `second` votes."""
    now = ahead(first, second)
    gains = []
    for more in range(1, horizon + 1):
        after = 0.0
        for own in range(more + 1):
            one, other = first + own, second + more - own
            after += _beta_binomial(own, more, first + 1, second + 1) * ahead(max(one, other), min(one, other))
        gains.append((after - now) / more)
    return max(0.0, *gains)


def _beta_binomial(hits: int, n: int, a: float, b: float) -> float:
    log = betaln(hits + a, n - hits + b) - betaln(a, b) - math.log(n + 1) - betaln(n - hits + 1, hits + 1)
    return math.exp(float(log))


@dataclass(frozen=True, slots=True)
class Spending:
    """What came of a shared budget.

    Attributes:
        progress: of each problem.
        tokens: spent in all, never more than the budget.
        stopped: "budget", or "done" where no problem gains by another sample.
    """

    progress: list[Progress]
    tokens: int
    stopped: Literal["budget", "done"]

    @property
    def samples(self) -> list[int]:
        """How many each problem got."""
        return [len(progress.draws) for progress in self.progress]


async def spend(source: Source, rule: Gain, budget: int, *, first: int = FIRST, wave: int = WAVE) -> Spending:
    """Spend a budget over problems.

    Every problem gets `first` samples, one a round, as long as another is of use to it; then each wave goes to the
    problems of largest expected gain a token. What is drawn depends on the source, the rule and these numbers alone.

    Args:
        source: gives the samples.
        rule: what another sample is worth.
        budget: tokens in all, a hard cap: a sample that would pass it is cut and answers nothing.
        first: samples of each problem before they are compared.
        wave: samples drawn together; 1 looks after every one.

    Raises:
        ConfigError: a number is out of its range.
    """
    if budget < 1 or first < 0 or wave < 1:
        raise ConfigError(f"budget={budget}, first={first}, wave={wave} do not work: at least 1, 0 and 1 are needed")
    progress = [Progress() for _ in range(len(source))]
    gains = [rule.gain(place, one) for place, one in enumerate(progress)]
    spent = drawn = 0
    while True:
        useful = [place for place, gain in enumerate(gains) if gain > 0 and source.left(place)]
        if not useful:
            return Spending(progress, spent, "done")
        if spent >= budget:
            return Spending(progress, spent, "budget")
        mean = spent / drawn if drawn else float(budget)
        # Near the end fewer are drawn together, so that hardly any has to be cut.
        size = min(wave, max(1, int((budget - spent) / (2 * max(mean, 1.0)))))
        chosen = _chosen(useful, progress, gains, mean, first)[:size]
        for place, draw in zip(chosen, await source.draw(chosen, (budget - spent) // len(chosen)), strict=True):
            progress[place].draws.append(draw)
            gains[place] = rule.gain(place, progress[place])
            spent += draw.tokens
            drawn += 1


def _chosen(
    useful: list[int], progress: list[Progress], gains: list[float], mean: float, first: int
) -> list[int]:  # fmt: skip
    """Those that still lack their first samples, the fewest first; else by expected gain a token. Ties by place."""
    lacking = [place for place in useful if len(progress[place].draws) < first]
    if lacking:
        return sorted(lacking, key=lambda place: len(progress[place].draws))

    def worth(place: int) -> float:
        tokens = (progress[place].tokens + mean) / (len(progress[place].draws) + 1)
        return gains[place] / max(tokens, 1.0)

    return sorted(useful, key=lambda place: -worth(place))
