"""A backend on another thread's loop: the same answers and the same ledger, and nothing lost when a run is cut."""

import asyncio
import threading

import pytest

from ramify.backends.cross_loop import CrossLoopBackend
from ramify.errors import RequestError
from ramify.randomness import BranchKey
from ramify.scoring import Problem
from ramify.strategies import Budget, parse_strategy, solve
from ramify.strategies.testing import BY_TEXT, toy_backend

PROBLEM = Problem("1", "xy")


@pytest.fixture
def loop():
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


def without_time(result):
    return {**result.ledger.to_dict(), "wall_s": 0}


@pytest.mark.parametrize(
    "spec", ["best-of-n:n=5", "beam:n=4,m=2,until=1", "particle-filter:n=4,until=1", "trimr:n=3,until=1,suffix=a"]
)
def test_a_run_from_another_loop_is_the_same_run(loop, spec):
    async def run(backend):
        strategy = parse_strategy(spec)
        return await solve(strategy, PROBLEM, backend, budget=Budget(tokens=40), seed=3, equivalence=BY_TEXT)

    here = asyncio.run(run(toy_backend()))
    far = asyncio.run(run(CrossLoopBackend(toy_backend(), loop)))
    assert (far.text, far.answer, far.stop_reason) == (here.text, here.answer, here.stop_reason)
    assert without_time(far) == without_time(here)
    assert far.trace.events[:-1] == here.trace.events[:-1]


@pytest.mark.parametrize("spec", ["best-of-n:n=8", "beam:n=8,m=2,until=1", "first-finish:stride=1"])
def test_a_run_that_is_cut_has_counted_all_that_its_backend_ran(loop, spec):
    inner = toy_backend(pace=lambda key: key.low % 50)

    async def run():
        cancel = asyncio.Event()
        asyncio.get_running_loop().call_later(0.005, cancel.set)
        return await solve(parse_strategy(spec), PROBLEM, CrossLoopBackend(inner, loop), seed=3, cancel=cancel)

    ledger = asyncio.run(run()).ledger
    assert (ledger.generated, ledger.verifier) == (inner.usage.generated, inner.usage.verifier)


def test_an_error_of_the_backend_arrives_as_it_is(loop):
    async def run():
        await CrossLoopBackend(toy_backend(), loop).root("xy", BranchKey.root(1), model="none")

    with pytest.raises(RequestError, match="none"):
        asyncio.run(run())
