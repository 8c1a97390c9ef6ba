"""Which method for which difficulty: a table of measured accuracy by difficulty bin and cost, and the best way through.

Snell et al., "Scaling LLM Test-Time Compute Optimally Can Be More Effective than Scaling Model Parameters",
arXiv:2408.03314. A cheap predictor (the agreement of a few samples, a reward model's score) says how hard a problem is;
training problems fill the table; a budget, which holds for the mean over problems, is then spent where the accuracy
rises most a token. Within a bin the useful options are those on the upper concave hull of accuracy against cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramify.errors import ConfigError
from ramify.randomness import FloatArray

IntArray = npt.NDArray[np.int64]
BINS = 4
"""Difficulty bins: few enough that each holds a dozen of some fifty training problems."""


@dataclass(frozen=True, slots=True)
class Table:
    """What was measured: each option (a method at a size) on each problem.

    Attributes:
        options: their names.
        accuracy: [problems, options] share of right answers, 0 to 1.
        cost: [problems, options] tokens, the predictor's included.

    Raises:
        ConfigError: the shapes differ or nothing is there.
    """

    options: tuple[str, ...]
    accuracy: FloatArray
    cost: FloatArray

    def __post_init__(self) -> None:
        if self.accuracy.ndim != 2 or self.accuracy.shape != self.cost.shape or not self.accuracy.size:
            raise ConfigError(f"a table of shape {self.accuracy.shape} and {self.cost.shape}: both [problems, options]")
        if self.accuracy.shape[1] != len(self.options):
            raise ConfigError(f"{len(self.options)} options have names and {self.accuracy.shape[1]} have numbers")

    def means(self, places: IntArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Accuracy and cost of each option, [options] each, over all problems or some."""
        rows = np.arange(len(self.accuracy)) if places is None else places
        return self.accuracy[rows].mean(axis=0), self.cost[rows].mean(axis=0)


@dataclass(frozen=True, slots=True)
class Choice:
    """An option for each bin.

    Attributes:
        options: their places in the table, one a bin.
        cost: mean tokens a problem that it takes on the training problems.
        accuracy: share of the training problems that it answers rightly.
    """

    options: tuple[int, ...]
    cost: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class DifficultyPlan:
    """A choice for every budget.

    Attributes:
        edges: where one bin ends and the next begins, rising; a problem on an edge is in the upper bin.
        choices: by rising cost and accuracy.
        names: of the options.
    """

    edges: tuple[float, ...]
    choices: tuple[Choice, ...]
    names: tuple[str, ...]

    @classmethod
    def fit(cls, predicted: Sequence[float] | FloatArray, table: Table, bins: int = BINS) -> DifficultyPlan:
        """Bins of equally many training problems, and the choices that pay most.

        Args:
            predicted: [problems] what the predictor says; only its order counts.
            table: what was measured on the same problems.
            bins: how many; fewer come out where predictions are equal.

        Raises:
            ConfigError: a prediction is missing or no number, or `bins` is less than 1.
        """
        values = np.asarray(predicted, dtype=np.float64)
        if values.shape != (len(table.accuracy),) or not np.isfinite(values).all() or bins < 1:
            raise ConfigError(
                f"bins={bins} over {values.size} predictions for {len(table.accuracy)} problems: one each"
            )
        edges = _edges(values, bins)
        place = np.searchsorted(edges, values, side="right")
        members = [np.flatnonzero(place == index) for index in range(len(edges) + 1)]
        return cls(tuple(edges), _choices(table, members), table.options)

    def bins(self, predicted: Sequence[float] | FloatArray) -> IntArray:
        """The bin of each problem, from 0."""
        found: IntArray = np.searchsorted(self.edges, np.asarray(predicted, dtype=np.float64), side="right")
        return found

    def choice(self, budget: float) -> Choice:
        """The best choice whose mean cost on the training problems is within a budget.

        Raises:
            ConfigError: the budget is below the cheapest choice.
        """
        within = [choice for choice in self.choices if choice.cost <= budget * (1 + 1e-12)]
        if not within:
            least = self.choices[0].cost
            raise ConfigError(f"a budget of {budget:g} tokens a problem is too small: the cheapest takes {least:.0f}")
        return within[-1]

    def judge(
        self, predicted: Sequence[float] | FloatArray, table: Table, budget: float
    ) -> tuple[FloatArray, FloatArray]:
        """Accuracy and cost of the choice for a budget on other problems, [problems] each."""
        options = np.array(self.choice(budget).options)[self.bins(predicted)]
        rows = np.arange(len(options))
        return table.accuracy[rows, options], table.cost[rows, options]


def best_option(table: Table, budget: float) -> int:
    """The most accurate option for all problems alike whose mean cost is within a budget; the cheapest of equals.

    Raises:
        ConfigError: none is.
    """
    accuracy, cost = table.means()
    within = [place for place in range(len(cost)) if cost[place] <= budget]
    if not within:
        raise ConfigError(f"a budget of {budget:g} tokens a problem is too small: the cheapest takes {cost.min():.0f}")
    return max(within, key=lambda place: (accuracy[place], -cost[place]))


def upper_hull(cost: FloatArray, accuracy: FloatArray) -> list[int]:
    """Places of the points that a mixture of others does not reach: by rising cost, with falling gain a token."""
    hull: list[int] = []
    for place in sorted(range(len(cost)), key=lambda place: (cost[place], -accuracy[place])):
        if hull and accuracy[place] <= accuracy[hull[-1]]:
            continue
        while len(hull) > 1:
            before, last = hull[-2], hull[-1]
            rise = (accuracy[last] - accuracy[before]) * (cost[place] - cost[last])
            if rise > (accuracy[place] - accuracy[last]) * (cost[last] - cost[before]):
                break
            hull.pop()
        hull.append(place)
    return hull


def _edges(values: FloatArray, bins: int) -> list[float]:
    """Quantiles between which there are problems."""
    wanted = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="higher"))
    return [float(edge) for edge in wanted if edge > values.min()]


def _choices(table: Table, members: Sequence[IntArray]) -> tuple[Choice, ...]:
    """From the cheapest option in every bin, step by step along the hulls, the steepest step of all bins first."""
    shares = [len(rows) / len(table.accuracy) for rows in members]
    means = [table.means(rows) for rows in members]
    hulls = [upper_hull(cost, accuracy) for accuracy, cost in means]
    at = [0] * len(hulls)

    def made() -> Choice:
        options = tuple(hull[place] for hull, place in zip(hulls, at, strict=True))
        accuracy = sum(share * float(own[0][o]) for share, own, o in zip(shares, means, options, strict=True))
        cost = sum(share * float(own[1][o]) for share, own, o in zip(shares, means, options, strict=True))
        return Choice(options, cost, accuracy)

    def slope(index: int) -> float:
        accuracy, cost = means[index]
        here, there = hulls[index][at[index]], hulls[index][at[index] + 1]
        return float((accuracy[there] - accuracy[here]) / (cost[there] - cost[here]))

    found = [made()]
    while ahead := [index for index, hull in enumerate(hulls) if at[index] + 1 < len(hull)]:
        at[max(ahead, key=slope)] += 1
        found.append(made())
    return tuple(found)
