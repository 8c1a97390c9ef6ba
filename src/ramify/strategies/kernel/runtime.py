"""The runtime: runs strategies, and turns whatever stops one (budget, deadline, cancel) into a valid result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ramify.backends.base import Backend, require
from ramify.errors import BudgetExhausted, ConfigError
from ramify.randomness import BranchKey
from ramify.sampling import Prompt
from ramify.scoring.equivalence import Equivalence, MarkedAnswer
from ramify.scoring.problem import Problem
from ramify.scoring.prompts import content_text, text_or_messages
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result, StopReason
from ramify.strategies.kernel.trace import AnyEvent, Started, Stopped
from ramify.strategies.registry import Strategy, describe, requirements

DEFAULT_CONCURRENCY = 32  # problems at once: enough to fill an engine's batch, few enough to keep their KV


async def solve(
    strategy: Strategy,
    problem: Problem,
    backend: Backend,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    equivalence: Equivalence | None = None,
    listener: Callable[[AnyEvent], None] | None = None,
    cancel: asyncio.Event | None = None,
) -> Result:
    """Run one strategy on one problem.

    Args:
        budget: the hard cap; none by default.
        seed: with the problem's task and id it decides every draw.
        equivalence: what makes two answers the same; marked answers and numbers by default.
        listener: called with each trace event, for progress displays.
        cancel: when it is set, the run stops and gives its best answer so far.

    Returns:
        A valid result in every case; without a deadline or a cancel it depends on the arguments alone.

    Raises:
        CapabilityError: the backend lacks what the strategy needs; before the first token.
        ScorerError, RequestError, EngineError: a scorer or the backend failed.
    """
    require(backend, requirements(strategy), f"strategy {strategy.name!r}")
    budget = budget or Budget()
    key = BranchKey.root(seed, f"{problem.task}/{problem.id}")
    equivalence = equivalence or MarkedAnswer()
    suffix, reserve = _forced_answer(strategy, budget)
    context = Context(problem, backend, key, strategy.sampling, budget, equivalence, listener, reserve)
    spec = describe(strategy)
    context.emit(Started(problem.id, spec, seed, _shown(problem.prompt)))
    run = asyncio.create_task(strategy.run(problem, context))
    try:
        stopped = await _stopped_by(run, budget.seconds, cancel)
        run.cancel()
        await asyncio.wait([run])
        result = _outcome(run, context, stopped)
        if suffix and stopped is None and result.best.finish_reason != "stop":
            await context.complete(suffix, reserve)
            result = context.conclude(result.stop_reason)
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await context.close()
    context.check()
    result = replace(result, ledger=context.ledger(), problem_id=problem.id, strategy=spec)
    context.emit(Stopped(result.stop_reason, result.ledger.total_tokens, result.ledger.to_dict()))
    return result


async def solve_many(
    strategy: Strategy,
    problems: Iterable[Problem],
    backend: Backend,
    *,
    concurrency: int = DEFAULT_CONCURRENCY,
    on_result: Callable[[Problem, Result], None] | None = None,
    on_error: Callable[[Problem, Exception], None] | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    equivalence: Equivalence | None = None,
    listener: Callable[[Problem], Callable[[AnyEvent], None] | None] | None = None,
) -> list[Result | None]:
    """Run a strategy on many problems, `concurrency` at a time; they share the backend's batch and nothing else.

    Args:
        on_result: called as each result comes, in any order.
        on_error: called for a problem that failed; its result is None and the others go on. Without it the first
            failure stops all and is raised.
        budget: of each problem.
        listener: gives the listener of a problem's trace events, or None.

    Returns:
        Results in the order of the problems.
    """
    waiting = list(problems)
    results: list[Result | None] = [None] * len(waiting)
    places = iter(range(len(waiting)))

    async def work() -> None:
        for place in places:
            problem = waiting[place]
            try:
                result = await solve(
                    strategy,
                    problem,
                    backend,
                    budget=budget,
                    seed=seed,
                    equivalence=equivalence,
                    listener=None if listener is None else listener(problem),
                )
            except Exception as error:
                if on_error is None:
                    raise
                on_error(problem, error)
                continue
            results[place] = result
            if on_result is not None:
                on_result(problem, result)

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(waiting)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return results


def _shown(prompt: Prompt) -> str:
    """What a trace shows of a prompt: its text, or the last message's; nothing of token ids."""
    said = text_or_messages(prompt)
    if said is None or isinstance(said, str):
        return said or ""
    return content_text(said[-1])


async def _stopped_by(
    run: asyncio.Task[Result], seconds: float | None, cancel: asyncio.Event | None
) -> StopReason | None:
    """Wait for the run, the deadline or the cancel; None if the run ended by itself."""
    waits: set[asyncio.Task[Any]] = {run}
    watcher = asyncio.create_task(cancel.wait()) if cancel is not None else None
    if watcher is not None:
        waits.add(watcher)
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if watcher is not None:
            watcher.cancel()
    if run.done():
        return None
    return "cancelled" if cancel is not None and cancel.is_set() else "budget"


def _forced_answer(strategy: Strategy, budget: Budget) -> tuple[str, int]:
    """The suffix that closes an unfinished answer, and the tokens held back for what follows it.

    Raises:
        ConfigError: there is a suffix and no reserve, or the reserve leaves nothing of the budget.
    """
    suffix, reserve = getattr(strategy, "answer_suffix", ""), getattr(strategy, "reserve", 0)
    if bool(suffix) != bool(reserve) or reserve < 0:
        raise ConfigError(f"answer_suffix={suffix!r}, reserve={reserve} do not work: give both, reserve=16 say")
    if budget.tokens is not None and reserve >= budget.tokens:
        raise ConfigError(f"reserve={reserve} leaves nothing of a budget of {budget.tokens} tokens: reserve fewer")
    return suffix, reserve


def _outcome(run: asyncio.Task[Result], context: Context, stopped: StopReason | None) -> Result:
    if run.cancelled():
        return context.conclude(stopped or "cancelled")
    error = run.exception()
    if isinstance(error, BudgetExhausted):
        return context.conclude(stopped or "budget")
    if error is not None:
        raise error
    return run.result()
