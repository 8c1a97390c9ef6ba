"""The particle filter: tempering, the log-marginal, and the model's own confidence as a reward."""

import math

import numpy as np
import pytest

from ramify.errors import ConfigError, ScorerError
from ramify.strategies import parse_strategy
from ramify.strategies.kernel.trace import Resampled
from ramify.strategies.particles.log_marginal import log_marginal
from ramify.strategies.particles.potentials import carried, entropic_temperature, reweighted
from ramify.strategies.particles.step_confidence import step_confidence
from ramify.strategies.resampling import softmax
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, run_many

WARM = SMALL.law(0.8)


def tilted(tokens):
    return (1 + 2 * sum(token == 2 for token in tokens) + (len(tokens) == 3)) / 8


@pytest.mark.parametrize(
    "options",
    [
        "n=1",
        "n=3,ess=0.7,resampling=multinomial",
        "n=3,tempering=entropic,steps=4,resampling=stratified",
    ],
)
def test_the_log_marginal_estimates_the_mean_reward_without_bias(options):
    spec = f"particle-filter:until=1,potential=incremental,{options}"
    estimates = [math.exp(log_marginal(result)) for result in run_many(parse_strategy(spec), 200, reward=tilted)]
    exact = sum(chance * tilted(tokens) for tokens, chance in WARM.items())
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error
    assert error < 0.1 * exact


def test_weights_that_are_replaced_have_no_log_marginal():
    results = run_many(parse_strategy("particle-filter:n=3,until=1"), 5, reward=tilted)
    assert all(log_marginal(result) is None for result in results)


def test_an_unfinished_run_states_no_log_marginal():
    spec = "particle-filter:n=3,until=1,potential=incremental,steps=1"
    assert all(log_marginal(result) is None for result in run_many(parse_strategy(spec), 5, reward=tilted))


def test_replaced_weights_forget_what_was_before_and_incremental_ones_end_at_the_reward():
    rewards, before, nothing = np.array([0.8, 0.3]), np.array([0.2, 0.6]), np.zeros(2)
    replaced = reweighted("replace", np.array([5.0, -5.0]), rewards, before, 2.0)
    assert np.allclose(replaced, np.log(rewards / (1 - rewards)) / 2)
    first = reweighted("incremental", nothing, before, None, 1.0)
    assert np.allclose(np.exp(reweighted("incremental", first, rewards, before, 1.0)), rewards)


def test_the_temperature_is_above_one_only_early_and_where_few_particles_hold_the_weight():
    assert entropic_temperature(2.0, 8, 1, 10) == pytest.approx(4 * 0.9)
    assert entropic_temperature(4.0, 8, 1, 10) == 1.0
    assert entropic_temperature(2.0, 8, 5, 10) == 1.0
    assert entropic_temperature(3.9, 8, 4, 10) == pytest.approx(8 / 3.9 * 0.6)


def test_weights_carried_past_a_tempered_resampling_keep_every_expectation():
    log_weights = np.log([0.1, 2.0, 0.5])
    chances = softmax(log_weights / 2)
    expected = sum(3 * chances[i] * math.exp(carried(log_weights, chances, [i])[0]) for i in range(3))
    assert expected == pytest.approx(2.6)
    plain = softmax(log_weights)
    assert np.allclose(np.exp(carried(log_weights, plain, [0, 1, 2])), 2.6 / 3)


def test_tempering_keeps_more_particles():
    def survivors(spec):
        results = run_many(parse_strategy(spec), 30, reward=lambda tokens: 0.95 if tokens[0] == 1 else 0.02)
        events = [event for result in results for event in result.trace.events if isinstance(event, Resampled)]
        return np.mean([len(set(event.parents)) / len(event.parents) for event in events])

    spec = "particle-filter:n=12,until=1,steps=8,resampling=multinomial"
    assert survivors(f"{spec},tempering=entropic") > survivors(spec)


def test_the_models_own_confidence_is_the_geometric_mean_of_the_steps_probabilities():
    spec = "particle-filter:n=2,until=1,scorer=step-confidence,temperature=1"
    for result in run_many(parse_strategy(spec), 20):
        for candidate in result.candidates:
            node = candidate.node
            chance = float(SMALL.conditional(node.tokens[:-1])[node.tokens[-1]])
            assert candidate.score == pytest.approx(min(1.0, chance))
    with pytest.raises(ScorerError, match="logprobs"):
        step_confidence(run_many(parse_strategy("sample"), 1)[0].best)


@pytest.mark.parametrize(
    ("options", "words"),
    [("n=0", "n=0"), ("ess=2", "ess=2"), ("tempering=warm", "choose from"), ("scorer=logprob", "step-confidence")],
)
def test_options_that_do_not_work_are_refused_with_the_remedy(options, words):
    with pytest.raises(ConfigError, match=words):
        parse_strategy(f"particle-filter:{options}")


@pytest.mark.parametrize(
    "spec",
    [
        "particle-filter:n=4,until=1,tempering=entropic,steps=6",
        "particle-filter:n=3,until=1,scorer=step-confidence,potential=incremental,select=sample",
    ],
)
def test_it_keeps_the_laws_of_every_strategy(spec):
    check_strategy(parse_strategy(spec))
