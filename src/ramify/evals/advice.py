"""Pools and evaluations as the plain data that `planning` works on: what allocations are fitted to and judged by.

Problems come in three parts that share none: what is fitted, what is chosen by, and what is judged on.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ramify.backends.base import Backend
from ramify.errors import ConfigError
from ramify.evals.pools import AnswerTask, Pool, Sample
from ramify.evals.replay import sample_score, tokens_at_k
from ramify.evals.report import NO_BUDGET
from ramify.evals.runner import content_of, evaluate, name_of
from ramify.evals.selectors import check_replayable, chooser_of, estimate_of, scorer_of
from ramify.evals.sizing import OpenSize, opened
from ramify.evals.tasks import Task
from ramify.planning.difficulty import Table
from ramify.planning.osca import Outcomes
from ramify.planning.per_prompt import FIRST
from ramify.planning.recommend import Measured
from ramify.planning.solve_verify import Verified
from ramify.planning.sources import Draw, Stored
from ramify.randomness import BranchKey, FloatArray, uniform_counters
from ramify.registry import parse_spec
from ramify.scoring.prm import Aggregation, ProcessReward
from ramify.scoring.problem import Problem
from ramify.strategies.registry import Strategy

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Sizes that a pool is replayed at, as far as it goes."""
LIVE_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Sizes at which a strategy is run that no pool can replay."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Problems to fit on, to choose by and to judge on; no content is in two of them."""

    train: list[Problem]
    validation: list[Problem]
    test: list[Problem]


def parts_of(task: AnswerTask, problems: Sequence[Problem], train: int, test: int, seed: int = 0) -> Parts:
    """The parts of a task: two of its validation split and one of its test split, else a third of its problems each.

    The training split of a generated task is left alone: models were trained on it, and its mix is another one.

    Args:
        task: the task.
        problems: of a task that has no splits, all that it has; equal contents stay together.
        train: problems to fit on, and as many to choose by, of a generated task.
        test: problems to judge on, of a generated task.
        seed: of a generated task.

    Raises:
        ConfigError: there are too few.
    """
    if isinstance(task, Task):
        halves = _alternating(task.problems(2 * train, seed, "validation"), 2)
        return Parts(halves[0], halves[1], task.problems(test, seed, "test"))
    thirds = _alternating(problems, 3)
    if not all(thirds):
        raise ConfigError(f"{len(problems)} problems cannot be fitted and judged on: give at least 6 different ones")
    return Parts(*thirds)


def _alternating(problems: Sequence[Problem], parts: int) -> list[list[Problem]]:
    """Problems dealt out to parts by their content, so that equal ones stay together; the parts are about equal."""
    found: list[list[Problem]] = [[] for _ in range(parts)]
    places: dict[Hashable, int] = {}
    for problem in problems:
        fewest = min(range(parts), key=lambda part: len(found[part]))
        found[places.setdefault(content_of(problem), fewest)].append(problem)
    return found


def groups_of(problems: Sequence[Problem]) -> list[Hashable]:
    """What each problem asks: equal ones are no independent evidence."""
    return [content_of(problem) for problem in problems]


def sizes_of(pool: Pool) -> list[int]:
    """Sizes that a pool can be replayed at."""
    return [size for size in SIZES if size <= pool.n]


def measure_pool(
    pool: Pool, strategy: Strategy, spec: str, seed: int = 0, sizes: Sequence[int] | None = None
) -> Measured:  # fmt: skip
    """A strategy that draws answers and chooses, replayed from a pool at every size, or at some.

    Raises:
        ConfigError: the pool cannot replay it.
    """
    estimate, sizes = estimate_of(strategy, pool, seed), sizes or sizes_of(pool)
    scorer = scorer_of(strategy)
    reader = scorer.model if isinstance(scorer, ProcessReward) else None
    alone = [Pool(pool.header, {name: samples}) for name, samples in pool.samples.items()]
    return Measured(
        method=spec,
        specs=tuple(with_size(spec, "n", size) for size in sizes),
        accuracy=np.array([[estimate(samples, k) for k in sizes] for samples in pool.samples.values()]),
        tokens=np.array([[tokens_at_k(one, k, reader) for k in sizes] for one in alone]),
    )


def replayable(pool: Pool, strategy: Strategy) -> bool:
    """Whether a pool can replay a strategy."""
    try:
        check_replayable(strategy, pool)
    except ConfigError:
        return False
    return True


async def measure_live(
    strategy: Strategy, spec: str, task: AnswerTask, problems: Sequence[Problem], backend: Backend, *,
    path: str | os.PathLike[str], model: str, most: float, seed: int = 0,
) -> Measured:  # fmt: skip
    """A strategy run at rising sizes, up to the first that takes more than `most` tokens a problem.

    Args:
        strategy: parsed from `spec`, which may leave the size open.
        path: journal of the runs, new or from an earlier one.
        most: mean tokens a problem.

    Raises:
        ConfigError: no size works.
    """
    method = opened(strategy, spec)
    made = [method.at(size) for size in LIVE_SIZES] if isinstance(method, OpenSize) else [method]
    specs: list[str] = []
    columns: list[tuple[list[float], list[float]]] = []
    for sized in (one for one in made if one is not None):
        found = await evaluate([sized], task, problems, backend, path=path, model=model, seed=seed)
        if found.failures:
            raise found.failures[0].error
        tokens = [float(record["ledger"]["total_tokens"]) for record in found.records]
        specs.append(name_of(sized))
        columns.append(([float(record["correct"]) for record in found.records], tokens))
        if np.mean(tokens) > most:
            break
    if not specs:
        raise ConfigError(f"{spec} works at none of the sizes {LIVE_SIZES}: give it one")
    accuracy, spent = (np.array(one).T for one in zip(*columns, strict=True))
    return Measured(spec, tuple(specs), accuracy, spent)


async def run_fixed(
    strategy: Strategy, task: AnswerTask, problems: Sequence[Problem], backend: Backend, *,
    path: str | os.PathLike[str], model: str, seed: int = 0,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Accuracy and tokens of a strategy as it stands, [problems] each; budgets play no part."""
    found = await evaluate([strategy], task, problems, backend, path=path, model=model, budgets=(NO_BUDGET,), seed=seed)
    if found.failures:
        raise found.failures[0].error
    right = np.array([float(record["correct"]) for record in found.records])
    return right, np.array([float(record["ledger"]["total_tokens"]) for record in found.records])


def with_size(spec: str, field: str, size: int) -> str:
    """A spec with its size put first."""
    name, options = parse_spec(spec)
    return f"{name}:" + ",".join([f"{field}={size}", *(f"{key}={value}" for key, value in options.items())])


def outcomes_of(pools: Sequence[Pool]) -> Outcomes:
    """Right and drawn samples of each problem under each setting: one pool a setting, of the same problems.

    Raises:
        ConfigError: the pools are of different problems.
    """
    names = list(pools[0].samples)
    if any(list(pool.samples) != names for pool in pools):
        raise ConfigError("the pools of the settings hold different problems: draw them on the same")
    correct = [[sum(sample.correct for sample in pool.samples[name]) for pool in pools] for name in names]
    return Outcomes(np.array(correct), np.array([[len(pool.samples[name]) for pool in pools] for name in names]))


def mean_tokens(pool: Pool) -> float:
    """Mean tokens of a sample."""
    return float(np.mean([sample.generated for samples in pool.samples.values() for sample in samples]))


def stored(pool: Pool, checked: bool, order: int = 0) -> Stored:
    """A pool as a source of samples, in the order in which they were drawn (0) or another one.

    Args:
        checked: whether the allocator may know which samples are right.
        order: which.
    """
    found = []
    for name, samples in pool.samples.items():
        draws = [Draw(s.key, s.correct if checked else None, s.generated, s.logprob or 0.0) for s in samples]
        found.append([draws[place] for place in _order(name, order, len(draws))])
    return Stored(found)


def right_answers(pool: Pool) -> list[set[Hashable]]:
    """The keys that are right for each problem, as far as the pool has seen them."""
    return [{s.key for s in samples if s.correct and s.key is not None} for samples in pool.samples.values()]


def verified_of(pool: Pool, reward_model: str, agg: Aggregation = "last") -> list[Verified]:
    """A pool whose samples have one verdict each: a reward model's score, which asking again would not change."""
    return [
        Verified(
            answers=tuple(sample.key for sample in samples),
            correct=tuple(sample.correct for sample in samples),
            verdicts=np.array([[max(0.0, sample_score(sample, reward_model, agg))] for sample in samples]),
            solution_tokens=float(np.mean([sample.generated for sample in samples])),
            verification_tokens=float(np.mean([sample.verifier[reward_model] for sample in samples])),
            once=float(samples[0].prompt_tokens),
        )
        for samples in pool.samples.values()
    ]


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a difficulty plan is fitted to or judged on: every problem several times, its samples in several orders.

    Attributes:
        agreement: [rows] share of the first samples that the leading answer has.
        table: of the same rows.
        groups: [rows] the problem of each.
    """

    agreement: FloatArray
    table: Table
    groups: list[str]


def predicted_of(
    pool: Pool, strategies: Sequence[tuple[str, Strategy]], orders: int = 10, first: int = FIRST
) -> Predicted:
    """Agreement of the first samples, and what strategies choose among these and further ones.

    The first samples tell the difficulty and are then candidates like all others, so no option has fewer.
    """
    sizes = [size for size in sizes_of(pool) if size >= first]
    agreement: list[float] = []
    groups: list[str] = []
    right: list[list[float]] = []
    cost: list[list[float]] = []
    readers = [_reader(strategy) for _, strategy in strategies]
    for name, samples in pool.samples.items():
        choosers = [chooser_of(strategy, samples) for _, strategy in strategies]
        for order in range(orders):
            places = [int(place) for place in _order(name, order + 1, len(samples))]
            agreement.append(_agreement([samples[place] for place in places[:first]]))
            groups.append(name)
            picks = [choose(places[:size]) for choose in choosers for size in sizes]
            right.append([float(pick is not None and samples[pick].correct) for pick in picks])
            cost.append([_cost(samples, places[:size], reader) for reader in readers for size in sizes])
    options = tuple(with_size(spec, "n", size) for spec, _ in strategies for size in sizes)
    return Predicted(np.array(agreement), Table(options, np.array(right), np.array(cost)), groups)


def _reader(strategy: Strategy) -> str | None:
    scorer = scorer_of(strategy)
    return scorer.model if isinstance(scorer, ProcessReward) else None


def _agreement(samples: Sequence[Sample]) -> float:
    keys = [sample.key for sample in samples if sample.key is not None]
    return max((keys.count(key) for key in keys), default=0) / len(samples)


def _cost(samples: Sequence[Sample], places: Sequence[int], reader: str | None) -> float:
    generated = sum(samples[place].generated for place in places)
    if reader is None:
        return float(generated)
    return float(generated + samples[0].prompt_tokens + sum(samples[place].verifier[reader] for place in places))


def _order(name: str, order: int, size: int) -> list[int]:
    """Order 0 is that of drawing; others are random, each problem's its own."""
    if order == 0:
        return list(range(size))
    draws = uniform_counters(BranchKey.root(order, f"order/{name}"), size)
    return [int(place) for place in np.argsort(draws, kind="stable")]
