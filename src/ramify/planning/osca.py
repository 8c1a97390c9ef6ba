"""OSCA: how many samples to draw from each of several settings (temperatures, models, prompts), fitted on a pool.

Zhang et al., "Scaling LLM Inference with Optimized Sample Compute Allocation", arXiv:2410.22480. What is maximised is
the share of problems that at least one sample solves, so answers must be checkable (or a good judge must choose). The
problems that an allocation is searched on, chosen on and judged on are three different sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from ramify.errors import ConfigError
from ramify.randomness import BranchKey, FloatArray, uniform_counters

Counts = tuple[int, ...]
IntArray = npt.NDArray[np.int64]

RESTARTS = 8
"""Random allocations that the search also starts from, beside the two greedy ones and every setting alone."""
_GAIN = 1e-12
"""What a move has to gain: less is rounding."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a pool says of each problem under each setting.

    Attributes:
        correct: [problems, settings] right samples.
        drawn: [problems, settings] samples in all.

    Raises:
        ConfigError: the shapes differ, nothing is there, or more are right than were drawn.
    """

    correct: IntArray
    drawn: IntArray

    def __post_init__(self) -> None:
        if self.correct.ndim != 2 or self.correct.shape != self.drawn.shape or not self.correct.size:
            raise ConfigError(
                f"outcomes of shape {self.correct.shape} and {self.drawn.shape}: both are [problems, settings]"
            )
        if (self.correct < 0).any() or (self.correct > self.drawn).any() or (self.drawn < 1).any():
            raise ConfigError("each problem needs a sample under each setting, and no more right ones than drawn")

    @property
    def probabilities(self) -> FloatArray:
        """[problems, settings] probability that a sample is right: the mean under Jeffreys' Beta(1/2, 1/2) prior."""
        smoothed: FloatArray = (self.correct + 0.5) / (self.drawn + 1.0)
        return smoothed

    @property
    def most(self) -> IntArray:
        """[settings] samples that every problem has: beyond them nothing can be judged without bias."""
        least: IntArray = self.drawn.min(axis=0)
        return least


@dataclass(frozen=True, slots=True)
class Allocation:
    """How many samples of each setting to draw for a problem.

    Attributes:
        counts: one a setting.
        cost: what they cost, in the unit of the settings' costs.
        expected: share of the training problems that they should solve, from smoothed probabilities.
        validated: share of the validation problems that they solve, unbiased; NaN without such problems.
    """

    counts: Counts
    cost: float
    expected: float
    validated: float


def solved(probabilities: FloatArray, counts: Sequence[int]) -> FloatArray:
    """The probability that at least one of the samples is right, [problems]: 1 - prod_s (1 - p_s)^k_s."""
    missed: FloatArray = np.prod((1.0 - probabilities) ** np.asarray(counts), axis=1)
    return 1.0 - missed


def pass_at(outcomes: Outcomes, counts: Sequence[int]) -> FloatArray:
    """The unbiased estimate of the same, [problems]: 1 - prod_s C(n_s - c_s, k_s) / C(n_s, k_s).

    Raises:
        ConfigError: more samples of a setting are asked for than a problem has.
    """
    wanted = np.asarray(counts, dtype=np.int64)
    if wanted.shape != (outcomes.drawn.shape[1],) or (wanted < 0).any() or (wanted > outcomes.most).any():
        raise ConfigError(f"counts {tuple(counts)} cannot be judged: there are {tuple(outcomes.most)} samples at most")
    wrong = outcomes.drawn - outcomes.correct
    possible = wrong >= wanted
    left = np.where(possible, wrong - wanted, 0)
    logs = gammaln(wrong + 1) - gammaln(left + 1) - gammaln(outcomes.drawn + 1)
    logs += gammaln(outcomes.drawn - wanted + 1)
    missed: FloatArray = np.prod(np.where(possible, np.exp(np.minimum(logs, 0.0)), 0.0), axis=1)
    return 1.0 - missed


def allocate(
    train: Outcomes,
    costs: Sequence[float],
    budget: float,
    validation: Outcomes | None = None,
    *,
    restarts: int = RESTARTS,
    seed: int = 0,
) -> Allocation:
    """The counts of largest expected success within a budget.

    Local optima are searched on `train` from several starts: greedy by gain a cost, greedy by gain, every setting
    alone, and random ones; each goes on by swaps until none gains. With `validation` problems the one that solves most
    of these is chosen, else the one that is best on `train`. Judge what comes out by `pass_at` on further problems.

    Args:
        train: outcomes that probabilities come from.
        costs: of one sample of each setting, above 0.
        budget: what the samples of a problem may cost together; at least the cheapest sample.
        validation: outcomes on other problems.
        restarts: random starts.
        seed: of the random starts.

    Raises:
        ConfigError: a cost is not above 0, there is not one a setting, or the budget buys nothing.
    """
    price = np.asarray(costs, dtype=np.float64)
    if price.shape != (train.correct.shape[1],) or not (price > 0).all():
        raise ConfigError(
            f"costs {tuple(costs)} do not work: one above 0 for each of {train.correct.shape[1]} settings"
        )
    if price.min() > budget:
        raise ConfigError(f"a budget of {budget:g} buys no sample: the cheapest costs {price.min():g}")
    most = train.most if validation is None else np.minimum(train.most, validation.most)
    search = _Search(train.probabilities, price, budget, most)
    found = dict.fromkeys(tuple(map(int, search.improved(start))) for start in search.starts(restarts, seed))

    def made(counts: Counts) -> Allocation:
        held_out = float("nan") if validation is None else float(pass_at(validation, counts).mean())
        return Allocation(counts, float(price @ counts), search.value(np.array(counts)), held_out)

    candidates = [made(counts) for counts in found]
    if validation is None:
        return max(candidates, key=lambda one: (one.expected, -one.cost))
    return max(candidates, key=lambda one: (one.validated, one.expected, -one.cost))


def best_single(train: Outcomes, costs: Sequence[float], budget: float) -> Allocation:
    """All of the budget in one setting, the one that should solve most training problems: what OSCA has to beat.

    Raises:
        ConfigError: the budget buys nothing.
    """
    made = []
    for place, cost in enumerate(costs):
        count = min(int(budget // cost), int(train.most[place]))
        counts = tuple(count if other == place else 0 for other in range(len(costs)))
        if count:
            value = float(solved(train.probabilities, counts).mean())
            made.append(Allocation(counts, count * cost, value, float("nan")))
    if not made:
        raise ConfigError(f"a budget of {budget:g} buys no sample: the cheapest costs {min(costs):g}")
    return max(made, key=lambda one: (one.expected, -one.cost))


class _Search:
    """Greedy additions and swaps over counts; all gains come from how likely each problem still is to be missed."""

    def __init__(self, probabilities: FloatArray, costs: FloatArray, budget: float, most: IntArray) -> None:
        self._probabilities, self._costs, self._most = probabilities, costs, most
        self._budget = budget * (1 + 1e-12)  # sums of costs round

    def value(self, counts: IntArray) -> float:
        return float(solved(self._probabilities, counts.tolist()).mean())

    def starts(self, restarts: int, seed: int) -> list[IntArray]:
        """Greedy by gain a cost, greedy by gain, every setting alone, and random fillings."""
        settings = len(self._costs)
        none = np.zeros(settings, dtype=np.int64)
        made = [self._filled(none, self._costs), self._filled(none, np.ones(settings))]
        for place in range(settings):
            alone = none.copy()
            alone[place] = min(int(self._budget // self._costs[place]), int(self._most[place]))
            made.append(alone)
        return made + [self._random(BranchKey.root(seed, f"osca/restart {index}")) for index in range(restarts)]

    def improved(self, counts: IntArray) -> IntArray:
        """Fill up, then move cost from one setting to others as long as that gains."""
        best = self._filled(counts, self._costs)
        value = self.value(best)
        while True:
            moves = [(self.value(moved), moved) for moved in self._swaps(best)]
            top = max(moves, key=lambda move: move[0], default=(value, best))
            if top[0] <= value + _GAIN:
                return best
            value, best = top

    def _swaps(self, counts: IntArray) -> list[IntArray]:
        """Take samples of one setting away, just enough for one more of another, and fill the rest greedily."""
        found = []
        rest = self._budget - float(self._costs @ counts)
        for out in np.flatnonzero(counts):
            for into in range(len(counts)):
                if into == out or counts[into] >= self._most[into]:
                    continue
                short = max(0.0, float(self._costs[into]) - rest)
                away = max(1, int(np.ceil(short / self._costs[out])))
                if away <= counts[out]:
                    moved = counts.copy()
                    moved[out] -= away
                    moved[into] += 1
                    found.append(self._filled(moved, self._costs))
        return found

    def _filled(self, counts: IntArray, per: FloatArray) -> IntArray:
        """Add the sample of largest gain over `per` as long as one is affordable."""
        filled = counts.copy()
        missed = 1.0 - solved(self._probabilities, filled.tolist())
        rest = self._budget - float(self._costs @ filled)
        while True:
            open_settings = (self._costs <= rest) & (filled < self._most)
            if not open_settings.any():
                return filled
            gains = np.where(open_settings, (missed @ self._probabilities) / per, -np.inf)
            place = int(np.argmax(gains))
            filled[place] += 1
            rest -= float(self._costs[place])
            missed = missed * (1.0 - self._probabilities[:, place])

    def _random(self, key: BranchKey) -> IntArray:
        """Settings drawn one by one, evenly, as long as one is affordable."""
        counts = np.zeros(len(self._costs), dtype=np.int64)
        draws = iter(uniform_counters(key, int(self._most.sum())))
        rest = self._budget
        while (places := np.flatnonzero((self._costs <= rest) & (counts < self._most))).size:
            place = places[int(next(draws) * places.size)]
            counts[place] += 1
            rest -= float(self._costs[place])
        return counts
