"""The purse: allowances in launch order, as if branches ran one after the other."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.errors import ConfigError
from ramify.strategies.kernel.budget import Budget, Prices
from ramify.strategies.kernel.purse import Charge, Purse


def plain(tokens):
    return Charge(tokens)


async def run_branches(limit, branches, order):
    """Admit branches (wanted, used) in order while they end in the order `order` names; returns their allowances."""
    purse = Purse(Budget(tokens=limit))
    holds, allowances = {}, []

    async def admit():
        for i, (wanted, _) in enumerate(branches):
            hold = await purse.admit(plain, wanted)
            if hold is None:
                return
            holds[i] = hold
            allowances.append(hold.allowance)

    admission = asyncio.create_task(admit())
    ended = set()
    while not admission.done() or len(ended) < len(holds):
        await asyncio.sleep(0)
        ready = [i for i in sorted(holds, key=lambda i: order[i]) if i not in ended]
        if ready:
            ended.add(ready[0])
            hold = holds[ready[0]]
            purse.settle(hold, Charge(min(branches[ready[0]][1], hold.allowance)))
    await admission
    assert purse.binds().tokens <= limit
    return allowances


def one_after_the_other(limit, branches):
    left, allowances = limit, []
    for wanted, used in branches:
        allowance = min(wanted, left)
        if allowance == 0:
            break
        allowances.append(allowance)
        left -= min(used, allowance)
    return allowances


BRANCHES = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=8)


@given(st.integers(1, 60), BRANCHES, st.randoms(use_true_random=False))
def test_allowances_are_those_of_running_one_after_the_other(limit, branches, random):
    order = list(range(len(branches)))
    random.shuffle(order)
    assert asyncio.run(run_branches(limit, branches, order)) == one_after_the_other(limit, branches)


def test_what_scoring_gives_back_counts_from_the_next_batch_on():
    async def check():
        purse = Purse(Budget(tokens=10))
        hold = await purse.admit(plain, 10)
        purse.settle(hold, Charge(10))
        purse.refund(Charge(4))
        assert await purse.admit(plain, 4) is None
        purse.begin()
        assert (await purse.admit(plain, 9)).allowance == 4

    asyncio.run(check())


def test_dollars_are_capped_like_tokens():
    async def check():
        prices = Prices(generated=1_000_000)
        purse = Purse(Budget(dollars=3.0, prices=prices))
        hold = await purse.admit(lambda n: Charge(n, float(n)), 10)
        assert hold.allowance == 3

    asyncio.run(check())


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("2000", Budget(tokens=2000)),
        ("4k", Budget(tokens=4000)),
        ("1.5k tokens".replace(" tokens", ""), Budget(tokens=1500)),
        ("30s", Budget(seconds=30.0)),
        ("2000, 0.5s", Budget(tokens=2000, seconds=0.5)),
    ],
)
def test_a_budget_is_read_from_text(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["many", "0", "-5", "1.5", "$0.05", "30s,40s", "5 minutes"])
def test_a_budget_that_means_nothing_is_refused(text):
    with pytest.raises(ConfigError):
        Budget.parse(text)
