"""Token-level search: priors from the policy, values from the value model, the most visited token is committed."""

import asyncio

import numpy as np
import pytest

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import CapabilityError, ConfigError
from ramify.scoring import Problem
from ramify.strategies import Budget, parse_strategy, solve
from ramify.strategies.kernel.trace import Grown
from ramify.strategies.testing import BY_TEXT, check_strategy, toy_backend

TEXTS = ("", "a", "b\n", "c\n")


def model(first, later=(1.0, 0.0, 0.0, 0.0), depth=3):
    """Every prefix of one token or more goes on by `later`."""
    base = ToyModel.random(0, TEXTS, depth)
    rows = {prefix: np.array(later if prefix else first) for prefix in base.table}
    return ToyModel(TEXTS, {p: row if len(p) < depth - 1 else np.eye(4)[0] for p, row in rows.items()})


def run(spec, table, reward, seed=0):
    backend = ToyBackend(table, {"nano-prm": reward}, max_model_len=24)
    return asyncio.run(solve(parse_strategy(spec), Problem("p", "xy"), backend, equivalence=BY_TEXT, seed=seed))


@pytest.mark.parametrize("seed", range(4))
def test_under_a_constant_value_the_likeliest_tokens_are_committed(seed):
    table = ToyModel.random(5)
    result = run("token-mcts:simulations=30,k=4", table, lambda tokens: 0.5, seed)
    greedy = []
    while not greedy or greedy[-1] != 0:
        greedy.append(int(table.table[tuple(greedy)].argmax()))
    assert result.best.tokens == tuple(greedy)


def test_the_value_model_overrules_the_prior():
    table = model(first=(0.0, 0.6, 0.3, 0.1))
    result = run("token-mcts:simulations=20,k=3", table, lambda tokens: 0.9 if tokens[0] == 3 else 0.1)
    assert result.best.tokens[0] == 3
    plain = run("token-mcts:simulations=20,k=3", table, lambda tokens: 0.5)
    assert plain.best.tokens[0] == 1


def test_a_value_that_comes_late_reaches_the_first_token():
    table = model(first=(0.0, 0.5, 0.5, 0.0), later=(0.0, 0.5, 0.5, 0.0), depth=4)
    result = run("token-mcts:simulations=60,k=2", table, lambda tokens: 0.9 if tokens[:2] == (2, 2) else 0.3)
    assert result.best.tokens[:2] == (2, 2)


def test_a_value_model_of_whole_steps_is_asked_at_their_ends():
    table = model(
        first=(0.0, 0.9, 0.1, 0.0), later=(0.0, 0.0, 1.0, 0.0), depth=3
    )  # "a" is followed by "b" and a line's end
    asked = []

    def reward(tokens):
        asked.append(tokens)
        return 0.9 if tokens[0] == 2 else 0.1

    result = run("token-mcts:simulations=12,k=2,value=step", table, reward)
    assert result.best.tokens[0] == 2
    assert all(TEXTS[tokens[-1]].endswith("\n") or tokens[-1] == 0 for tokens in asked)
    assert (1,) not in asked


def test_only_the_k_likeliest_tokens_are_considered():
    table = model(first=(0.0, 0.5, 0.3, 0.2))
    prizes = {1: 0.1, 2: 0.5, 3: 1.0}
    chosen = {
        k: run(f"token-mcts:simulations=20,k={k}", table, lambda t: prizes[t[0]]).best.tokens[0] for k in (1, 2, 3)
    }
    assert chosen == {1: 1, 2: 2, 3: 3}


def test_a_simulation_draws_at_most_two_tokens_and_reads_one():
    result = run("token-mcts:simulations=5,k=3", ToyModel.random(5), lambda tokens: 0.5)
    tokens = len(result.best.tokens)
    assert result.ledger.generated <= tokens * (2 * 5 + 1)
    assert all(event.num_tokens == 1 for event in result.trace.events if isinstance(event, Grown))


def test_a_drawn_commit_follows_the_visits():
    table = model(first=(0.0, 0.5, 0.5, 0.0))
    spec = "token-mcts:simulations=8,k=2,commit_temperature=1"
    first = [run(spec, table, lambda tokens: 0.5, seed).best.tokens[0] for seed in range(60)]
    assert 15 < first.count(1) < 45


def test_a_run_that_is_cut_gives_a_finished_answer_that_the_search_came_by():
    table = model(first=(0.4, 0.3, 0.3, 0.0), later=(0.1, 0.5, 0.4, 0.0), depth=5)
    backend = ToyBackend(table, {"nano-prm": lambda tokens: 0.2 if 0 in tokens else 0.6}, max_model_len=24)
    strategy = parse_strategy("token-mcts:simulations=6,k=3")
    result = asyncio.run(solve(strategy, Problem("p", "xy"), backend, equivalence=BY_TEXT, budget=Budget(tokens=30)))
    assert result.stop_reason == "budget"
    assert result.best.finish_reason == "stop"


@pytest.mark.parametrize(
    "options",
    ["simulations=0", "k=0", "exploration=-1", "prior_temperature=0", "commit_temperature=-1", "scorer=logprob"],
)
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        parse_strategy(f"token-mcts:{options}")


@pytest.mark.parametrize(
    "spec",
    [
        "token-mcts:simulations=2,k=2,commit_temperature=1",
    ],
)
def test_the_laws_of_every_strategy(spec):
    check_strategy(parse_strategy(spec))


def test_it_says_that_it_needs_log_probabilities():
    backend = toy_backend()
    backend.capabilities = frozenset(backend.capabilities) - {"logprobs"}
    with pytest.raises(CapabilityError, match="logprobs"):
        asyncio.run(solve(parse_strategy("token-mcts"), Problem("p", "xy"), backend))
