"""Running strategies over a task's problems, many at once, into a journal that a killed run goes on with.

A record is one (strategy, budget, problem). The numbers are a function of task, model, seed and spec: neither the
batch size nor the concurrency nor an interruption changes them (times apart, and the token counts of methods that
cancel branches in flight). The pilot problems that sizes are fitted on are records like all others, so that a run that
goes on fits the same sizes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ramify.backends.base import Backend, require
from ramify.errors import ConfigError
from ramify.evals.jsonl import Journal, Record
from ramify.evals.pools import AnswerTask, key_text, whole_lines
from ramify.evals.report import NO_BUDGET, Row, mean, row_of
from ramify.evals.sizing import PILOTS, Fit, OpenSize, fit, size_field, try_sizes
from ramify.registry import parse_spec
from ramify.scoring.equivalence import KeyedBy
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.runtime import DEFAULT_CONCURRENCY, solve_many
from ramify.strategies.registry import Strategy, describe, requirements

Place = tuple[str, str, str]
"""Strategy, budget and problem: what names a record."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A problem that could not be evaluated; it is not in the journal and is tried again by the next run."""

    strategy: str
    problem: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Run:
    """The records of one method under one budget.

    Attributes:
        method: its spec, without the size where that was fitted.
        strategy: its spec with its size.
        budget: as given.
        records: one a problem, in the order of the problems; without those that failed.
    """

    method: str
    strategy: str
    budget: str
    records: list[Record]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found.

    Attributes:
        rows: one a method and budget.
        records: one a strategy, budget and problem, in that order.
        failures: problems that raised; they are in no row.
        runs: the records of each row.
        fits: the sizes that were fitted.
        groups: problem id -> its content; problems of equal content count as one in the intervals.
    """

    rows: list[Row]
    records: list[Record]
    failures: list[Failure]
    runs: list[Run] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    groups: dict[str, Hashable] = field(default_factory=dict)


async def evaluate(
    strategies: Sequence[Strategy | OpenSize],
    task: AnswerTask,
    problems: Sequence[Problem],
    backend: Backend,
    *,
    path: str | os.PathLike[str],
    model: str,
    budgets: Sequence[str] = (NO_BUDGET,),
    seed: int = 0,
    concurrency: int = DEFAULT_CONCURRENCY,
    progress: Callable[[str, int, int], None] | None = None,
    pilots: Sequence[Problem] = (),
) -> Evaluation:
    """Run every strategy under every budget on every problem that the journal does not hold yet.

    Args:
        strategies: see `parse_strategy`; one of open size (see `sizing.opened`) is fitted to each budget in tokens and
            has its default size under others.
        task: reads and checks answers.
        problems: their ids must differ.
        backend: where tokens come from.
        path: the journal, new or from an earlier run with the same task, model and seed.
        model: the model's name, for the record.
        budgets: of each problem, in `Budget.parse`'s form; empty for none.
        seed: of all draws.
        concurrency: problems at once.
        progress: called with (strategy, results so far, results in all) as each comes.
        pilots: problems that sizes are fitted on; by default the first `PILOTS` of `problems`.

    Raises:
        CapabilityError: the backend lacks what a strategy needs; before the first token.
        ConfigError: a budget is not understood, ids or strategies repeat, the journal has other settings, or a strategy
            of open size works at none.
    """
    limits = {text: Budget.parse(text) for text in budgets}
    _check_distinct("problem", [problem.id for problem in problems])
    _check_distinct("strategy", [method_of(strategy) for strategy in strategies])
    for strategy in strategies:
        needing = strategy.strategy if isinstance(strategy, OpenSize) else strategy
        require(backend, requirements(needing), f"strategy {needing.name!r}")
    groups = {problem.id: content_of(problem) for problem in problems}
    total = len(strategies) * len(limits) * len(problems)
    header = {"kind": "evaluation", "task": task.name, "model": model, "seed": seed}
    with Journal(path, header) as journal:
        session = _Session(task, backend, journal, seed, concurrency, total, progress)
        runs: list[Run] = []
        fits: list[Fit] = []
        for strategy in strategies:
            sized = await session.sizes(strategy, limits, pilots or problems[:PILOTS])
            fits += [found for _, found in sized.values() if found is not None]
            for text, (made, _) in sized.items():
                name = name_of(made)
                records = await session.complete(made, text, limits[text], problems, counted=True)
                runs.append(Run(method_of(strategy), name, text, records))
    runs = [run for run in runs if run.records]
    rows = [row_of(run.method, run.strategy, run.budget, run.records, groups, seed) for run in runs]
    records = list({place_of(record): record for run in runs for record in run.records}.values())
    return Evaluation(rows, records, session.failures, runs, fits, groups)


def record_of(task: AnswerTask, strategy: str, budget: str, problem: Problem, result: Result) -> Record:
    """A result as it is stored."""
    record = {
        "strategy": strategy,
        "budget": budget,
        "problem": problem.id,
        "correct": task.correct(whole_lines(result.text, result.best.finish_reason), problem),
        "answer": key_text(result.answer),
        "text": result.text,
        "candidates": len(result.candidates),
        "stop_reason": result.stop_reason,
        "ledger": result.ledger.to_dict(),
    }
    notes = list(result.notes)
    return {**record, "notes": notes} if notes else record


def name_of(strategy: Strategy) -> str:
    """A strategy's spec as it is stored and shown: what differs from the defaults, and its size in any case."""
    spec, size = describe(strategy), size_field(strategy)
    name, options = parse_spec(spec)
    if size is None or size in options:
        return spec
    return ",".join([f"{name}:{size}={getattr(strategy, size)}", *(f"{key}={value}" for key, value in options.items())])


def method_of(strategy: Strategy | OpenSize) -> str:
    """What names a strategy over all budgets: its spec, without a size that is open."""
    return strategy.name if isinstance(strategy, OpenSize) else name_of(strategy)


def place_of(record: Record) -> Place:
    """What names a record."""
    return record["strategy"], record["budget"], record["problem"]


def content_of(problem: Problem) -> Hashable:
    """What is asked: the canonical content that a generated task states, else the prompt."""
    return str(problem.metadata.get("content", problem.prompt))


class _Session:
    """One opened journal, and what runs into it."""

    def __init__(
        self, task: AnswerTask, backend: Backend, journal: Journal, seed: int, concurrency: int, total: int,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:  # fmt: skip
        self.failures: list[Failure] = []
        self._task, self._backend, self._journal = task, backend, journal
        self._seed, self._concurrency = seed, concurrency
        self._known = {place_of(record): record for record in journal.records}
        self._done, self._total, self._progress = 0, total, progress

    async def sizes(
        self, strategy: Strategy | OpenSize, limits: dict[str, Budget], pilots: Sequence[Problem]
    ) -> dict[str, tuple[Strategy, Fit | None]]:
        """The strategy that runs under each budget. Budgets are missing where every size failed."""
        if not isinstance(strategy, OpenSize):
            return dict.fromkeys(limits, (strategy, None))
        tokens = {text: budget.tokens for text, budget in limits.items() if budget.tokens is not None}
        found: dict[str, tuple[Strategy, Fit | None]] = {
            text: (strategy.strategy, None) for text in limits if text not in tokens
        }
        if tokens:
            tried = await try_sizes(strategy, max(tokens.values()), lambda made: self._mean_tokens(made, pilots))
            for text, limit in tokens.items() if tried else ():
                chosen = fit(strategy, text, limit, tried)
                made = strategy.at(chosen.size)
                assert made is not None
                found[text] = (made, chosen)
        return {text: found[text] for text in limits if text in found}

    async def complete(
        self, strategy: Strategy, text: str, budget: Budget, problems: Sequence[Problem], counted: bool
    ) -> list[Record]:
        """Run what the journal lacks; the records of all that did not fail. `counted` work is that of the total."""
        spec = name_of(strategy)
        missing = [problem for problem in problems if (spec, text, problem.id) not in self._known]

        def advance(steps: int = 1) -> None:
            self._done += steps if counted else 0
            if self._progress is not None and steps:
                self._progress(spec if counted else f"{spec} (fitting)", self._done, self._total)

        def keep(problem: Problem, result: Result) -> None:
            record = record_of(self._task, spec, text, problem, result)
            self._journal.append([record])
            self._known[place_of(record)] = record
            advance()

        def fail(problem: Problem, error: Exception) -> None:
            self.failures.append(Failure(spec, problem.id, error))
            advance()

        advance(len(problems) - len(missing))
        await solve_many(
            strategy, missing, self._backend, concurrency=self._concurrency, on_result=keep, on_error=fail,
            budget=budget, seed=self._seed, equivalence=KeyedBy(self._task.answer),
        )  # fmt: skip
        places = [(spec, text, problem.id) for problem in problems]
        return [self._known[place] for place in places if place in self._known]

    async def _mean_tokens(self, strategy: Strategy, pilots: Sequence[Problem]) -> float | None:
        records = await self.complete(strategy, NO_BUDGET, Budget(), pilots, counted=False)
        if not records or len(records) < len(pilots):
            return None
        return mean(record["ledger"]["total_tokens"] for record in records)


def _check_distinct(what: str, names: Sequence[Any]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the {what} {name!r} is there twice: name each once")
