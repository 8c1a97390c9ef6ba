"""Memory of the searches: what was given up is free before the next step."""

import asyncio
from contextlib import aclosing

import pytest

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.scoring import Problem
from ramify.strategies import parse_strategy, solve
from ramify.strategies.kernel.context import Context
from ramify.strategies.testing import BY_TEXT, rising_reward

SPECS = [
    "beam:n=8,m=2,until=1",
    "lookahead:n=6,m=2,until=1",
    "dvts:n=8,m=2,until=1",
    "rebase:n=8,until=1",
    "treebon:n=8,m=2,segment=1,layers=4",
    "stochastic-beam:n=8,m=2,until=1,scorer=prm",
    "phi:n=2,m=3,until=1,min_steps=9,sigma=9",
]


class Watching(ToyBackend):
    """Notes which open branches of a depth hold memory while others of that depth are extended."""

    def __init__(self):
        super().__init__(ToyModel.random(0), {"nano-prm": rising_reward}, max_model_len=24)
        self.batches = []
        self.live_at_calls = []
        self.open_at = {}

    async def extend(self, node, params, n=1, first_child=0, step_end=None):
        batch = self.batches[-1] if self.batches else None
        if batch is None or batch["depth"] != node.depth or node.key in batch["parents"]:
            batch = {"depth": node.depth, "parents": set(), "live": set()}
            self.batches.append(batch)
        batch["parents"].add(node.key)
        batch["live"] |= self.live
        self.live_at_calls.append(set(self.live))
        async with aclosing(super().extend(node, params, n, first_child, step_end)) as drawn:
            async for child in drawn:
                if child.open:
                    self.open_at.setdefault(child.depth, set()).add(child.key)
                yield child

    def idle(self):
        """Open branches that held memory though a batch of their own depth went on without them."""
        held = [batch["live"] & self.open_at.get(batch["depth"], set()) - batch["parents"] for batch in self.batches]
        return set().union(*held)


def watched(spec, seed):
    backend = Watching()
    asyncio.run(solve(parse_strategy(spec), Problem("p", "xy"), backend, seed=seed, equivalence=BY_TEXT))
    assert len(backend.batches) > 1
    return backend.idle()


@pytest.mark.parametrize("spec", SPECS)
def test_a_branch_that_was_given_up_is_released_before_the_next_step(spec):
    assert not any(watched(spec, seed) for seed in range(10))


@pytest.mark.parametrize("spec", SPECS)
def test_a_branch_that_is_never_given_up_would_be_seen(spec, monkeypatch):
    monkeypatch.setattr(Context, "drop", lambda self, nodes: None)
    assert any(watched(spec, seed) for seed in range(10))


def test_the_frontier_of_a_star_holds_no_more_than_its_width():
    backend = Watching()
    strategy = parse_strategy("a-star:m=4,until=1,weight=1.0,width=3")
    asyncio.run(solve(strategy, Problem("p", "xy"), backend, equivalence=BY_TEXT))
    opened = set().union(*backend.open_at.values())
    assert max(len(live & opened) for live in backend.live_at_calls) == 3
