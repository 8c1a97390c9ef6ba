"""The laws that every strategy keeps, over all registered ones in several configurations."""

import asyncio
import random

import pytest

from ramify import registry
from ramify.backends.base import Capability
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import CapabilityError
from ramify.scoring import Problem
from ramify.strategies import Budget, describe, parse_strategy, solve
from ramify.strategies.testing import (
    BY_TEXT,
    check_budget_and_ledger,
    check_one_answer_per_seed,
    check_result,
    check_stopping_at_any_moment,
    rising_reward,
    toy_backend,
)
from tests.strategies.specs import SPECS, STRATEGIES

PAIRS = 1000


def test_every_registered_strategy_is_under_the_laws():
    covered = {strategy.name for strategy in STRATEGIES.values()}
    assert covered >= {entry.name for entry in registry.techniques("strategy")}


@pytest.mark.parametrize("spec", STRATEGIES)
def test_the_result_does_not_depend_on_which_branch_ends_first(spec):
    check_one_answer_per_seed(STRATEGIES[spec])


@pytest.mark.parametrize("spec", STRATEGIES)
def test_the_budget_is_kept_and_the_ledger_is_the_backends_own_count(spec):
    check_budget_and_ledger(STRATEGIES[spec])


@pytest.mark.parametrize("spec", STRATEGIES)
def test_stopping_at_any_moment_gives_a_valid_result(spec):
    check_stopping_at_any_moment(STRATEGIES[spec])


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_describes_the_strategy_that_it_makes(spec):
    assert parse_strategy(describe(STRATEGIES[spec])) == STRATEGIES[spec]


def test_on_a_thousand_random_pairs_of_method_and_budget_the_cap_is_never_passed():
    """Other models, speeds and batch sizes than above; the ledger is the backend's own count each time."""
    draws = random.Random(0)
    names = list(STRATEGIES)
    for number in range(PAIRS):
        strategy, limit = STRATEGIES[draws.choice(names)], draws.randint(1, 250)
        model = ToyModel.random(draws.randint(0, 99), depth=draws.randint(2, 5))
        batch_size = draws.choice([None, 1, 2, 5])
        backend = ToyBackend(
            model, {"nano-prm": rising_reward}, lambda key: 1 + key.low % 4, batch_size, 24, models={"small": model}
        )
        problem = Problem(str(number), "xy")
        result = asyncio.run(solve(strategy, problem, backend, budget=Budget(tokens=limit), equivalence=BY_TEXT))
        assert result.ledger.total_tokens <= limit, (describe(strategy), limit, number)
        check_result(result, backend)


class Endpoint(ToyBackend):
    """The toy model with what a chat endpoint can do: any use of more is an error in the middle of a run."""

    capabilities = frozenset({Capability.N, Capability.CANCEL, Capability.LOGPROBS, Capability.SEED})

    async def extend(self, node, *arguments, **options):
        if node.text:
            raise AssertionError("an answer was continued")
        async for drawn in super().extend(node, *arguments, **options):
            yield drawn

    async def append(self, node, tokens, key, keep=None):
        raise AssertionError("tokens were forced")

    async def logprobs(self, node, continuations):
        raise AssertionError("a given text was scored")

    async def reward(self, nodes, model):
        raise AssertionError("a reward model was asked")


@pytest.mark.parametrize("spec", STRATEGIES)
def test_what_a_method_needs_is_said_before_the_first_token(spec):
    model = ToyModel.random(0)
    backend = Endpoint(model, max_model_len=24, models={"small": model})
    run = solve(STRATEGIES[spec], Problem("p", "xy"), backend, equivalence=BY_TEXT)
    try:
        result = asyncio.run(run)
    except CapabilityError:
        assert backend.usage.generated == 0
    else:
        check_result(result, backend)


def test_the_toy_backend_of_the_checks_offers_everything():
    assert toy_backend().capabilities == frozenset(Capability)
