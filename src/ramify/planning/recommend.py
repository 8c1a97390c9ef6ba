"""Which method to use at which size for a budget, from what was measured on training problems.

Every method gets a curve of accuracy against tokens; a budget gets the method and size whose curve is highest within
it. The error comes from drawing the problems again with replacement and fitting anew. Choosing the best of several
favours what was lucky, so what is expected is judged on problems that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramify.errors import ConfigError
from ramify.planning.curves import Curve, fit_curve
from ramify.randomness import BranchKey, FloatArray, uniform_counters

RESAMPLES = 200
"""Of the problems: the error is then known to a twentieth of itself."""
FEWEST_PROBLEMS = 2


@dataclass(frozen=True, slots=True)
class Measured:
    """A method at several sizes on the same problems.

    Attributes:
        method: its name over all sizes.
        specs: its spec at each size.
        accuracy: [problems, sizes] share of right answers, 0 to 1.
        tokens: [problems, sizes] total tokens.

    Raises:
        ConfigError: the shapes do not agree.
    """

    method: str
    specs: tuple[str, ...]
    accuracy: FloatArray
    tokens: FloatArray

    def __post_init__(self) -> None:
        wanted = (len(self.accuracy), len(self.specs))
        if not self.specs or self.accuracy.shape != wanted or self.tokens.shape != wanted:
            raise ConfigError(
                f"{self.method}: accuracy {self.accuracy.shape} and tokens {self.tokens.shape} of {len(self.specs)} "
                f"sizes; both are [problems, sizes]"
            )

    @property
    def curve(self) -> Curve:
        """Its curve over all of the problems."""
        return self.fitted(np.arange(len(self.accuracy)))

    def fitted(self, rows: npt.NDArray[np.intp]) -> Curve:
        """Its curve over some problems, which may repeat; sizes that cost exactly the same are one point."""
        tokens, accuracy = self.tokens[rows].mean(axis=0), self.accuracy[rows].mean(axis=0)
        distinct, place = np.unique(tokens, return_inverse=True)
        return fit_curve(distinct, np.bincount(place, weights=accuracy) / np.bincount(place))

    def within(self, budget: float) -> list[int]:
        """Sizes whose mean tokens are within a budget."""
        return [place for place, tokens in enumerate(self.tokens.mean(axis=0)) if tokens <= budget]


@dataclass(frozen=True, slots=True)
class Advice:
    """What to use for a budget.

    Attributes:
        budget: tokens a problem.
        method: its name.
        spec: the method at its size.
        tokens: mean tokens that it takes on the training problems.
        expected: accuracy that its curve gives.
        error: standard error of that.
        chosen: share of the resamples in which the same method was chosen: near 1 where the choice is clear.
    """

    budget: float
    method: str
    spec: str
    tokens: float
    expected: float
    error: float
    chosen: float


def recommend(
    measured: Sequence[Measured],
    budgets: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Advice]:
    """The method and size for each budget; nothing for a budget below the cheapest.

    Args:
        measured: methods, all on the same problems.
        budgets: mean tokens a problem.
        groups: one a problem; problems of a group are no independent evidence and are drawn together.
        resamples: of the problems.
        seed: of the resamples.

    Raises:
        ConfigError: there is no method, a name twice, too few problems, or not as many for all.
    """
    problems = _check(measured, groups)
    rows = [np.arange(problems), *_resampled(groups or range(problems), resamples, seed)]
    curves = [[method.fitted(some) for method in measured] for some in rows]
    found = []
    for budget in budgets:
        options = [(place, size) for place, method in enumerate(measured) for size in method.within(budget)]
        if not options:
            continue
        mean_tokens = [measured[place].tokens.mean(axis=0)[size] for place, size in options]
        values = np.array(
            [
                [fitted[place].at(tokens) for (place, _), tokens in zip(options, mean_tokens, strict=True)]
                for fitted in curves
            ]
        )
        best = [_highest(row, mean_tokens) for row in values]
        place, size = options[best[0]]
        again = [options[other][0] == place for other in best[1:]]
        found.append(
            Advice(
                budget=budget,
                method=measured[place].method,
                spec=measured[place].specs[size],
                tokens=float(mean_tokens[best[0]]),
                expected=float(values[0, best[0]]),
                error=float(values[1:, best[0]].std(ddof=1)) if resamples > 1 else float("nan"),
                chosen=float(np.mean(again)) if again else float("nan"),
            )
        )
    return found


def judge(advice: Advice, measured: Sequence[Measured]) -> tuple[FloatArray, FloatArray]:
    """Accuracy and tokens of what was advised on other problems, [problems] each.

    Raises:
        ConfigError: they hold no measurement of it.
    """
    for method in measured:
        if method.method == advice.method and advice.spec in method.specs:
            size = method.specs.index(advice.spec)
            return method.accuracy[:, size], method.tokens[:, size]
    raise ConfigError(f"{advice.spec} was not measured on these problems")


def _highest(values: FloatArray, tokens: Sequence[float]) -> int:
    """The place of the highest value; of equals that of the fewest tokens."""
    return max(range(len(values)), key=lambda place: (round(float(values[place]), 9), -tokens[place]))


def _resampled(groups: Sequence[Hashable] | range, resamples: int, seed: int) -> list[npt.NDArray[np.intp]]:
    """Rows of the problems, drawn by group with replacement."""
    members: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    rows = [np.array(group, dtype=np.intp) for group in members.values()]
    draws = uniform_counters(BranchKey.root(seed, "recommend"), resamples * len(rows)).reshape(resamples, len(rows))
    return [np.concatenate([rows[int(u * len(rows))] for u in draw]) for draw in draws]


def _check(measured: Sequence[Measured], groups: Sequence[Hashable] | None) -> int:
    counts = {len(method.accuracy) for method in measured} | ({len(groups)} if groups is not None else set())
    if len(counts) != 1:
        raise ConfigError(f"methods on {sorted(counts)} problems cannot be compared: measure all on the same")
    if len({method.method for method in measured}) < len(measured):
        raise ConfigError("two methods have the same name: give all sizes of a method together")
    [problems] = counts
    if problems < FEWEST_PROBLEMS:
        raise ConfigError(f"{problems} problem says nothing about others: measure at least {FEWEST_PROBLEMS}")
    return problems
