"""The laws every strategy keeps, as checks that a plug-in calls in its own tests: ``check_strategy(MyStrategy())``.

They run on the enumerable toy model, where the count of every token is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.randomness import BranchKey
from ramify.sampling import TokenIds
from ramify.scoring.equivalence import KeyedBy
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.budget import Budget
from ramify.strategies.kernel.result import Result
from ramify.strategies.kernel.runtime import solve
from ramify.strategies.kernel.trace import AnyEvent, Stopped
from ramify.strategies.registry import Strategy

PROBLEM = Problem("toy", "xy")
BY_TEXT = KeyedBy(lambda text, problem: text.strip() or None)
BUDGETS = (1, 2, 5, 9, 17, 40, 77, 150, 400)


def rising_reward(tokens: TokenIds) -> float:
    """A process reward that tells prefixes apart and stays inside (0, 1)."""
    return (1 + sum((place + 2) * token for place, token in enumerate(tokens)) % 7) / 8


def toy_backend(
    seed: int = 0, pace: Callable[[BranchKey], int] | None = None, batch_size: int | None = None
) -> ToyBackend:
    """A toy backend with a reward under the default reward model's name, another model "small", room for 24 tokens."""
    model, small = ToyModel.random(seed), ToyModel.random(seed + 1)
    rewards = {"nano-prm": rising_reward}
    return ToyBackend(model, rewards, pace, batch_size, max_model_len=24, models={"small": small})


def check_strategy(strategy: Strategy, problem: Problem = PROBLEM, budgets: Sequence[int] = BUDGETS) -> None:
    """Check all laws that hold for every strategy, under each of some budgets.

    Raises:
        AssertionError: names the law and the circumstances.
    """
    check_one_answer_per_seed(strategy, problem)
    check_budget_and_ledger(strategy, problem, budgets)
    check_stopping_at_any_moment(strategy, problem)


def check_one_answer_per_seed(strategy: Strategy, problem: Problem = PROBLEM) -> None:
    """The result does not depend on which branch ends first, nor on how many run at once."""
    counts = not getattr(strategy, "cancels", False)
    for tokens in (None, 60):
        budget = Budget(tokens=tokens)
        expected = _signature(_solve(strategy, toy_backend(), problem, budget), counts)
        for salt in range(4):
            backend = toy_backend(pace=_uneven(salt), batch_size=[None, 1, 3, 7][salt])
            found = _signature(_solve(strategy, backend, problem, budget), counts)
            assert found == expected, f"{strategy.name}: other speeds, other result (budget {tokens}, speeds {salt})"


def check_budget_and_ledger(strategy: Strategy, problem: Problem = PROBLEM, budgets: Sequence[int] = BUDGETS) -> None:
    """The budget is never passed, the ledger is the backend's own count, and no branch keeps memory."""
    for tokens in (None, *budgets):
        backend = toy_backend(pace=_uneven(1))
        result = _solve(strategy, backend, problem, Budget(tokens=tokens))
        check_result(result, backend)
        limit = tokens if tokens is not None else result.ledger.total_tokens
        assert result.ledger.total_tokens <= limit, f"{strategy.name} spent {result.ledger} of a budget of {tokens}"


def check_stopping_at_any_moment(strategy: Strategy, problem: Problem = PROBLEM) -> None:
    """A cancel after any number of the event loop's turns gives a valid result and frees everything."""
    for turns in (*range(41), *range(44, 100, 5)):
        backend = toy_backend(pace=_uneven(2))
        result, had_ended = asyncio.run(_cancelled_after(turns, strategy, backend, problem))
        check_result(result, backend)
        if had_ended:  # and so it has after more turns, with the same result
            return


def check_result(result: Result, backend: ToyBackend) -> None:
    """A result is whole: its ledger adds up and its best answer is one of its candidates."""
    ledger, usage = result.ledger, backend.usage
    assert (ledger.prompt, ledger.prompt_cached, ledger.calls) == (usage.prompt, usage.prompt_cached, usage.calls)
    read = usage.generated + usage.verifier + usage.probe
    assert ledger.total_tokens == read, f"the ledger has {ledger.total_tokens} tokens, the backend ran {read}"
    assert ledger.verifier >= usage.verifier
    assert ledger.probe >= usage.probe
    assert 0 <= ledger.discarded <= ledger.generated
    assert ledger.shared >= 0
    assert ledger.saved >= 0
    assert not backend.live, f"{len(backend.live)} branches were never released"
    keys = [candidate.node.key for candidate in result.candidates]
    assert len(keys) == len(set(keys)), "a candidate is listed twice"
    assert not keys or result.best.key in keys
    assert result.stop_reason in ("finished", "budget", "certain", "cancelled")
    Trace = type(result.trace)
    assert Trace.from_jsonl(result.trace.to_jsonl()).events == result.trace.events


def _solve(strategy: Strategy, backend: ToyBackend, problem: Problem, budget: Budget) -> Result:
    return asyncio.run(solve(strategy, problem, backend, budget=budget, equivalence=BY_TEXT))


async def _cancelled_after(
    turns: int, strategy: Strategy, backend: ToyBackend, problem: Problem
) -> tuple[Result, bool]:
    """The result, and whether the run had ended by itself."""
    cancel = asyncio.Event()
    run = asyncio.create_task(solve(strategy, problem, backend, equivalence=BY_TEXT, cancel=cancel))
    for _ in range(turns):
        await asyncio.sleep(0)
    had_ended = run.done()
    cancel.set()
    return await run, had_ended


def _uneven(salt: int) -> Callable[[BranchKey], int]:
    """Speeds that differ from branch to branch."""
    return lambda key: 1 + (key.low >> (8 * salt)) % 7


def _signature(result: Result, counts: bool) -> tuple[Hashable, ...]:
    """Everything that must not depend on timing; without the counts, what cancelled work leaves alone."""
    candidates = tuple((c.node.key, c.node.tokens, c.score, c.weight, str(c.answer)) for c in result.candidates)
    ledger = replace(result.ledger, wall_s=0.0, calls=0)  # one call may draw several branches, or each has its own
    outcome = (result.best.key, str(result.answer), result.stop_reason, candidates, result.notes)
    return (*outcome, ledger, _events(result.trace.events)) if counts else outcome


def _events(events: list[AnyEvent]) -> str:
    """All but the ledger of the last one, which has seconds in it."""
    return "\n".join(repr(event) for event in events if not isinstance(event, Stopped))
