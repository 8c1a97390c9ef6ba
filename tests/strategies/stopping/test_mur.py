"""MUR: when a step is widened, by the momentum of the chain's own steps, and who is taken."""

import math

import pytest

from ramify.backends.toy import ToyModel
from ramify.errors import ConfigError
from ramify.strategies import StepSplitter, parse_strategy
from ramify.strategies.stopping.mur import MomentumUncertainty
from ramify.strategies.testing import check_strategy, rising_reward
from tests.strategies.laws import SMALL, assert_law, run_many

EVERY_TOKEN = StepSplitter(max_tokens=1)
MODEL = ToyModel.random(4, depth=6)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_a_step_is_widened_just_above_the_momentum_over_gamma(gamma):
    method = MomentumUncertainty(gamma=gamma)
    edge = 0.7 - math.log(gamma)
    assert not method.widens(edge, 0.7)
    assert method.widens(edge + 1e-9, 0.7)
    assert method.widens(edge + 1e-9, 0.7) == (math.exp(edge + 1e-9) > math.exp(0.7) / gamma)


@pytest.mark.parametrize("spec", ["mur:k=1,until=1", "mur:k=3,until=1", "mur:k=4"])
def test_without_a_choice_or_a_preference_the_models_law_is_unchanged(spec):
    assert_law(run_many(parse_strategy(spec), 200), SMALL.law(temperature=0.8))


def replayed(result, momentum):
    """For each step of the chosen chain: its first draw's uncertainty, the momentum before it, how many were drawn."""
    tree = result.trace.tree()
    steps, past, place = [], 0.0, tree[0]
    while place.children:
        drawn = [tree[child] for child in place.children]
        above = place.logprob or 0.0
        taken = next((node for node in drawn if node.best), None)
        assert taken is not None
        unsure = [-(node.logprob - above) / node.num_tokens for node in (drawn[0], taken)]
        steps.append((unsure[0], past, len(drawn)))
        past = momentum * past + (1 - momentum) * unsure[1]
        place = taken
    return steps


@pytest.mark.parametrize(("momentum", "gamma"), [(0.9, 0.9), (0.3, 0.6)])
def test_every_step_but_the_first_is_widened_exactly_where_the_definition_says(momentum, gamma):
    method = MomentumUncertainty(k=3, until=EVERY_TOKEN, momentum=momentum, gamma=gamma)
    counts = {1: 0, 3: 0}
    for result in run_many(method, 40, model=MODEL, reward=rising_reward):
        for step, (unsure, past, drawn) in enumerate(replayed(result, momentum)):
            widened = step > 0 and math.exp(unsure) > math.exp(past) / gamma
            assert drawn == (3 if widened else 1)
            counts[drawn] += 1
    assert min(counts.values()) > 10


def test_the_candidate_with_the_highest_score_is_taken_and_the_others_count_as_discarded():
    for result in run_many(MomentumUncertainty(k=3, until=EVERY_TOKEN), 20, model=MODEL, reward=rising_reward):
        tree = result.trace.tree()
        lost = 0
        for place in tree:
            rivals = [tree[child] for child in place.children]
            if len(rivals) > 1:
                scores = [node.scores["ProcessReward"] for node in rivals]
                assert rivals[scores.index(max(scores))].best
                lost += sum(node.num_tokens for node in rivals if not node.best)
        assert result.ledger.discarded == lost
        assert len(result.candidates) == 1


def test_a_steps_score_is_paid_for_only_where_it_is_widened():
    for result in run_many(MomentumUncertainty(k=1), 5):
        assert result.ledger.verifier == 0


@pytest.mark.parametrize("options", [{"k": 0}, {"steps": 0}, {"momentum": 1}, {"gamma": 0}, {"gamma": 1.1}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        MomentumUncertainty(**options)


@pytest.mark.parametrize("spec", ["mur:k=3", "mur:k=3,until=1,gamma=1.0", "mur:k=2,until=2,scorer=logprob"])
def test_it_keeps_the_laws_of_all_strategies(spec):
    check_strategy(parse_strategy(spec))
