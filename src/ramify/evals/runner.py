"""Running strategies over a task's problems, many at once, into a journal that a killed run goes on with.

A record is one (strategy, budget, problem). The numbers are a function of task, model, seed and spec: neither the
batch size nor the concurrency nor an interruption changes them (wall time apart).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ramify.backends.base import Backend, require
from ramify.errors import ConfigError
from ramify.evals.jsonl import Journal, Record
from ramify.evals.pools import AnswerTask, key_text, whole_lines
from ramify.evals.report import NO_BUDGET, Row, summarise
from ramify.registry import parse_spec
from ramify.scoring.equivalence import KeyedBy
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.runtime import DEFAULT_CONCURRENCY, solve_many
from ramify.strategies.registry import Strategy, describe

Place = tuple[str, str, str]
"""Strategy, budget and problem: what names a record."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A problem that could not be evaluated; it is not in the journal and is tried again by the next run."""

    strategy: str
    problem: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found.

    Attributes:
        rows: one a strategy and budget.
        records: one a strategy, budget and problem, in that order.
        failures: problems that raised; they are in no row.
    """

    rows: list[Row]
    records: list[Record]
    failures: list[Failure]


async def evaluate(
    strategies: Sequence[Strategy],
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
) -> Evaluation:
    """Run every strategy under every budget on every problem that the journal does not hold yet.

    Args:
        strategies: see `parse_strategy`.
        task: reads and checks answers.
        problems: their ids must differ.
        backend: where tokens come from.
        path: the journal, new or from an earlier run with the same task, model and seed.
        model: the model's name, for the record.
        budgets: of each problem, in `Budget.parse`'s form; empty for none.
        seed: of all draws.
        concurrency: problems at once.
        progress: called with (strategy, results so far, results in all) as each comes.

    Raises:
        CapabilityError: the backend lacks what a strategy needs; before the first token.
        ConfigError: a budget is not understood, ids or strategies repeat, or the journal has other settings.
    """
    limits = {text: Budget.parse(text) for text in budgets}
    specs = [name_of(strategy) for strategy in strategies]
    _check_distinct("problem", [problem.id for problem in problems])
    _check_distinct("strategy", specs)
    for strategy in strategies:
        require(backend, strategy.requires, f"strategy {strategy.name!r}")
    header = {"kind": "evaluation", "task": task.name, "model": model, "seed": seed}
    wanted = [(spec, text, problem.id) for spec in specs for text in limits for problem in problems]
    failures: list[Failure] = []
    with Journal(path, header) as journal:
        known = {place_of(record): record for record in journal.records}
        done = sum(place in known for place in wanted)

        def advance(spec: str) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(spec, done, len(wanted))

        def keep(spec: str, text: str, problem: Problem, result: Result) -> None:
            record = record_of(task, spec, text, problem, result)
            journal.append([record])
            known[place_of(record)] = record
            advance(spec)

        def fail(spec: str, problem: Problem, error: Exception) -> None:
            failures.append(Failure(spec, problem.id, error))
            advance(spec)

        for strategy, spec in zip(strategies, specs, strict=True):
            for text, budget in limits.items():
                await solve_many(
                    strategy,
                    [problem for problem in problems if (spec, text, problem.id) not in known],
                    backend,
                    concurrency=concurrency,
                    on_result=partial(keep, spec, text),
                    on_error=partial(fail, spec),
                    budget=budget,
                    seed=seed,
                    equivalence=KeyedBy(task.answer),
                )
    records = [known[place] for place in wanted if place in known]
    return Evaluation(summarise(records, seed), records, failures)


def record_of(task: AnswerTask, strategy: str, budget: str, problem: Problem, result: Result) -> Record:
    """A result as it is stored."""
    return {
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


def name_of(strategy: Strategy) -> str:
    """A strategy's spec as it is stored and shown: what differs from the defaults, and its size in any case."""
    spec, size = describe(strategy), getattr(strategy, "n", None)
    name, options = parse_spec(spec)
    if size is None or "n" in options:
        return spec
    return ",".join([f"{name}:n={size}", *(f"{key}={value}" for key, value in options.items())])


def place_of(record: Record) -> Place:
    """What names a record."""
    return record["strategy"], record["budget"], record["problem"]


def _check_distinct(what: str, names: Sequence[Any]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the {what} {name!r} is there twice: name each once")
