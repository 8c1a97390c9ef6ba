"""Architecture search: which layers of model calls (see `archon`) are best on a task when all have the same budget.

After Archon (arXiv:2409.15254), with successive halving (arXiv:1502.07943): random architectures are measured on a few
problems each, the better part of them on more, and the last few on problems that were never used before. What is
measured is plain data, so that a search that was stopped goes on from what is known.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np

from ramify.backends.base import Backend
from ramify.errors import ConfigError, ScorerError
from ramify.randomness import BranchKey, uniform_counters
from ramify.scoring.equivalence import Equivalence
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.runtime import solve
from ramify.strategies.programs.archon import Archon
from ramify.strategies.programs.archon_layers import Component, Critic, Fuser, Generator, Ranker, write_layers

MAIN = "main"
"""What the main model is called in a list of models."""


@dataclass(frozen=True, slots=True)
class ArchitectureSpace:
    """Architectures of generators, perhaps a critic, perhaps a ranker, and layers of fusers.

    Attributes:
        models: names, the best first; "main" is the main model. The first also criticises, ranks and writes the end.
        top_models: how many of them generate (and fuse in layers before the last).
        samples: answers that each of them draws.
        fuser_layers: layers of fusers; the last is a single one.
        critic: whether there is a critic before what reads its critiques.
        ranked: candidates that a ranker leaves; 0 for no ranker. Without fusers a ranker leaves one.

    Raises:
        ConfigError: an axis is empty, or has a value that cannot work.
    """

    models: tuple[str, ...] = (MAIN,)
    top_models: tuple[int, ...] = (1,)
    samples: tuple[int, ...] = (1, 2, 4, 8)
    fuser_layers: tuple[int, ...] = (0, 1, 2)
    critic: tuple[bool, ...] = (False, True)
    ranked: tuple[int, ...] = (0, 2, 4)

    def __post_init__(self) -> None:
        for name, least in {"top_models": 1, "samples": 1, "fuser_layers": 0, "ranked": 0}.items():
            values: tuple[int, ...] = getattr(self, name)
            if not values or min(values) < least:
                raise ConfigError(f"{name}={values} does not work: give one or more numbers, each {least} or more")
        if max(self.top_models) > len(self.models) or len(set(self.models)) < len(self.models):
            raise ConfigError(
                f"top_models={self.top_models} of models={self.models}: so many different ones are wanted"
            )
        if not self.critic:
            raise ConfigError("critic=() does not work: give (False,), (True,) or both")

    def architectures(self) -> list[str]:
        """Every different architecture, as layers in a spec, in a fixed order."""
        axes = (self.top_models, self.samples, self.fuser_layers, self.critic, self.ranked)
        return list(dict.fromkeys(self._layers(*point) for point in itertools.product(*axes)))

    def _layers(self, top_models: int, samples: int, fuser_layers: int, critic: bool, ranked: int) -> str:
        """One point of the space; parts that would have nothing to do are left out."""
        models = [None if name == MAIN else name for name in self.models]
        best, team = models[0], models[:top_models]
        layers: list[list[Component]] = [[Generator(samples, model) for model in team]]
        stay = ranked if fuser_layers else min(ranked, 1)
        ranks = 0 < stay < top_models * samples
        if critic and (fuser_layers or ranks):
            layers.append([Critic(model=best)])
        if ranks:
            layers.append([Ranker(stay, best)])
        layers += [[Fuser(1, model) for model in team] for _ in range(fuser_layers - 1)]
        if fuser_layers:
            layers.append([Fuser(1, best)])
        return write_layers(layers)


class Measurement(msgspec.Struct, frozen=True):
    """One architecture on one problem.

    Attributes:
        layers: the architecture.
        problem: the problem's id.
        budget: tokens that it was allowed.
        score: how good its answer is, in [0, 1].
        tokens: what it spent.
    """

    layers: str
    problem: str
    budget: int
    score: float
    tokens: int


class Standing(msgspec.Struct, frozen=True):
    """One architecture on some problems: mean score, and mean tokens a problem."""

    layers: str
    score: float
    tokens: float


class Rung(msgspec.Struct, frozen=True):
    """Architectures measured on the same problems under the same budget, the best first."""

    problems: int
    standings: tuple[Standing, ...]


class SearchResult(msgspec.Struct, frozen=True):
    """What a search found; `msgspec.json` writes and reads it.

    Attributes:
        best: layers of the architecture that is best on the validation problems.
        tokens: budget of each architecture on each problem.
        rungs: of successive halving, on training problems.
        validation: the last few, on validation problems. The best one's score there is that of a winner: somewhat too
            high; measure it once more on other problems.
        measurements: everything measured, in order.
    """

    best: str
    tokens: int
    rungs: tuple[Rung, ...]
    validation: Rung
    measurements: tuple[Measurement, ...]

    @property
    def spec(self) -> str:
        """What `parse_strategy` makes the best one from."""
        return f"archon:layers={self.best}"

    @property
    def total_tokens(self) -> int:
        """What the search cost."""
        return sum(measured.tokens for measured in self.measurements)


Measure = Callable[[str, Problem, int], Awaitable[tuple[float, int]]]
"""Runs an architecture (its layers) on a problem under a budget in tokens; gives its score and the tokens it spent."""
Item = TypeVar("Item")


async def search_architectures(
    architectures: Sequence[str],
    measure: Measure,
    train: Sequence[Problem],
    validation: Sequence[Problem],
    tokens: int,
    *,
    trials: int = 32,
    first: int = 8,
    eta: int = 2,
    finalists: int = 4,
    seed: int = 0,
    concurrency: int = 32,
    known: Iterable[Measurement] = (),
    on_measured: Callable[[Measurement], None] | None = None,
) -> SearchResult:
    """Find the best of some architectures, all under the same budget on the same problems.

    Args:
        architectures: layers to choose from, for instance `ArchitectureSpace.architectures`.
        measure: see `measuring`.
        train: problems of the rungs, taken in an order of the seed's.
        validation: other problems, on which the winner is chosen.
        tokens: the budget of each architecture on each problem.
        trials: how many architectures are tried, drawn without repetition; all where there are no more.
        first: problems of the first rung; each further one has `eta` times as many and the best 1/`eta` of the field.
        finalists: architectures that go to the validation problems.
        known: measurements made before; those under this budget are not made again.
        on_measured: called with each new measurement as it is made, to keep it.

    Returns:
        A result that depends on the measurements and the arguments alone, and not on what ran first.

    Raises:
        ConfigError: an argument cannot work, validation problems are among the training problems, or a measurement
            spent more than its budget.
        ScorerError: a score is outside [0, 1].
    """
    counts = {"tokens": tokens, "trials": trials, "first": first, "finalists": finalists, "concurrency": concurrency}
    _check_counts({**counts, "eta - 1": eta - 1})
    _check_problems(train, validation)
    if not architectures:
        raise ConfigError("there is no architecture to choose from: give some, of ArchitectureSpace say")
    bench = _Bench(measure, tokens, concurrency, known, on_measured)
    field = _shuffled(list(dict.fromkeys(architectures)), seed, "architectures")[:trials]
    problems = _shuffled(train, seed, "problems")
    rungs: list[Rung] = []
    count = min(first, len(problems))
    while len(field) > finalists:
        rungs.append(await bench.rung(field, problems[:count]))
        left = finalists if count == len(problems) else max(finalists, math.ceil(len(field) / eta))
        field = [standing.layers for standing in rungs[-1].standings[:left]]
        count = min(count * eta, len(problems))
    final = await bench.rung(field, validation)
    return SearchResult(final.standings[0].layers, tokens, tuple(rungs), final, tuple(bench.used))


def measuring(
    backend: Backend,
    judge: Callable[[Problem, Result], float],
    *,
    make: Callable[[str], Archon] = Archon,
    equivalence: Equivalence | None = None,
    seed: int = 0,
) -> Measure:
    """A `Measure` that runs each architecture on a backend.

    Args:
        judge: how good a result is, in [0, 1]: with reference answers, 1 for a right one.
        make: the strategy of some layers, for other prompts or sampling.
    """

    async def measure(layers: str, problem: Problem, tokens: int) -> tuple[float, int]:
        budget = Budget(tokens=tokens)
        result = await solve(make(layers), problem, backend, budget=budget, seed=seed, equivalence=equivalence)
        return float(judge(problem, result)), result.ledger.total_tokens

    return measure


class _Bench:
    """Measures what is not known yet, several at a time; everything else is a function of what it has."""

    def __init__(
        self,
        measure: Measure,
        tokens: int,
        concurrency: int,
        known: Iterable[Measurement],
        on_measured: Callable[[Measurement], None] | None,
    ) -> None:
        self.used: list[Measurement] = []
        self._measure = measure
        self._tokens = tokens
        self._slots = asyncio.Semaphore(concurrency)
        self._known = {(one.layers, one.problem): self._checked(one) for one in known if one.budget == tokens}
        self._on_measured = on_measured
        self._counted: set[tuple[str, str]] = set()

    async def rung(self, field: Sequence[str], problems: Sequence[Problem]) -> Rung:
        """All of the field on all of the problems: mean scores, the best first."""
        cells = [(layers, problem) for layers in field for problem in problems]
        tasks = [asyncio.create_task(self._cell(*cell)) for cell in cells]
        try:
            measured = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for one in measured:
            if (one.layers, one.problem) not in self._counted:
                self._counted.add((one.layers, one.problem))
                self.used.append(one)
        size = len(problems)
        rows = [measured[start : start + size] for start in range(0, len(measured), size)]
        standings = [_standing(layers, row) for layers, row in zip(field, rows, strict=True)]
        # The highest score is the best, the cheaper one of equals; `sorted` leaves further equals in the field's order.
        return Rung(size, tuple(sorted(standings, key=lambda standing: (-standing.score, standing.tokens))))

    async def _cell(self, layers: str, problem: Problem) -> Measurement:
        found = self._known.get((layers, problem.id))
        if found is not None:
            return found
        async with self._slots:
            score, tokens = await self._measure(layers, problem, self._tokens)
        measured = self._checked(Measurement(layers, problem.id, self._tokens, score, tokens))
        self._known[layers, problem.id] = measured
        if self._on_measured is not None:
            self._on_measured(measured)
        return measured

    def _checked(self, measured: Measurement) -> Measurement:
        if not 0 <= measured.score <= 1:  # NaN is not
            raise ScorerError(
                f"{measured.layers} has the score {measured.score} on {measured.problem!r}: not in [0, 1]"
            )
        if measured.tokens > self._tokens:
            raise ConfigError(
                f"{measured.layers} spent {measured.tokens} tokens on {measured.problem!r} and its budget is "
                f"{self._tokens}: architectures compare at equal budgets only"
            )
        return measured


def _standing(layers: str, measured: Sequence[Measurement]) -> Standing:
    score = math.fsum(one.score for one in measured) / len(measured)
    return Standing(layers, score, sum(one.tokens for one in measured) / len(measured))


def _shuffled(items: Sequence[Item], seed: int, name: str) -> list[Item]:
    """The items in an order that depends on the seed and their number alone."""
    draws = uniform_counters(BranchKey.root(seed, f"architecture-search/{name}"), len(items))
    return [items[place] for place in np.argsort(draws, kind="stable")]


def _check_counts(counts: Mapping[str, int]) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name}={value} does not work: it must be 1 or more")


def _check_problems(train: Sequence[Problem], validation: Sequence[Problem]) -> None:
    """There are some of each, each once, and none in both: what was searched on cannot say what is best."""
    for name, problems in (("training", train), ("validation", validation)):
        if not problems or len({problem.id for problem in problems}) < len(problems):
            raise ConfigError(f"the {len(problems)} {name} problems do not work: give some, each with an id of its own")
    shared = {problem.id for problem in train} & {problem.id for problem in validation}
    if shared:
        raise ConfigError(f"problem {min(shared)!r} is for training and for validation: choose on other problems")
