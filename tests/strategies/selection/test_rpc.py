"""Perplexity consistency: sums over distinct ways, pruned by a fitted mixture."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from ramify.backends.toy import ToyBackend
from ramify.errors import ConfigError
from ramify.strategies import Sample, parse_strategy
from ramify.strategies.selection.rpc import PerplexityConsistency, rpc
from ramify.strategies.selection.weibull import fit, log_density, upper_posterior
from ramify.strategies.testing import check_strategy
from ramify.strategies.votes import tally
from tests.strategies.laws import SMALL, run_many
from tests.strategies.selection.ballot_cases import ballot, permuted

WARM = SMALL.law(0.8)


def mixture(seed, low=60, high=40):
    random = np.random.default_rng(seed)
    return np.log(np.concatenate([0.02 * random.weibull(2, low), 0.5 * random.weibull(5, high)]))


@settings(max_examples=60)
@given(permuted(), st.booleans(), st.sampled_from(["path", "token"]))
def test_permuting_candidates_never_changes_the_vote_except_ties(case, prune, probability):
    ballots, order = case
    moved = [ballots[i] for i in order]
    (winner, weights), (other, moved_weights) = rpc(ballots, prune, probability), rpc(moved, prune, probability)
    totals = tally([b.answer for b in ballots], weights)
    assert totals == tally([b.answer for b in moved], moved_weights)
    if ballots[winner].answer is not None:
        assert totals[ballots[winner].answer] == totals[moved[other].answer] == max(totals.values())


@settings(max_examples=60)
@given(permuted())
def test_without_pruning_an_answer_weighs_the_probability_of_its_distinct_ways(case):
    ballots, _ = case
    able = [b for b in ballots if b.finished] or ballots
    ways = {b.tokens: b for b in able}.values()
    sums = {}
    for way in ways:
        if way.answer is not None:
            sums[way.answer] = sums.get(way.answer, 0.0) + math.exp(way.logprob)
    winner, weights = rpc(ballots, prune=False)
    if sums:
        found = tally([b.answer for b, w in zip(ballots, weights, strict=True) if w], [w for w in weights if w])
        scale = sum(sums.values()) / sum(found.values())
        assert {answer: share * scale for answer, share in found.items()} == pytest.approx(
            {answer: share for answer, share in sums.items() if answer in found}, rel=1e-6, abs=1e-12
        )
        assert sums[ballots[winner].answer] == pytest.approx(max(sums.values()))


def test_a_way_that_was_drawn_twice_counts_once():
    often, rare = ballot("a", logprob=-3.0), ballot("b", logprob=-2.5)
    assert rpc([often, often, often, rare], prune=False)[0] == 3


def test_probabilities_too_small_for_a_float_still_vote():
    long = [ballot("a", 900, -2000.0), ballot("b", 900, -1990.0), ballot("a", 901, -2001.0)]
    winner, weights = rpc(long)
    assert winner == 1
    assert weights[1] == 1.0


def test_the_mean_over_tokens_does_not_favour_short_ways():
    short, long = ballot("a", 2, -3.0), ballot("b", 30, -6.0)
    assert rpc([short, long], probability="path")[0] == 0
    assert rpc([short, long], probability="token")[0] == 1


def test_the_fit_tells_two_planted_components_apart():
    logs = mixture(0)
    upper = upper_posterior(logs)
    assert (upper[:60] < 0.5).all()
    assert (upper[60:] > 0.5).all()


def test_the_fit_is_as_likely_as_what_a_general_optimiser_finds():
    values = np.sort(mixture(3, 30, 30))
    values = (values - values.max()) / values.std()
    posterior = fit(values, np.ones(len(values)))

    def loss(theta):
        parts = [
            np.log(share) + log_density(values, place, np.exp(log_shape))
            for share, place, log_shape in [
                (1 / (1 + np.exp(-theta[0])), theta[1], theta[2]),
                (1 / (1 + np.exp(theta[0])), theta[3], theta[4]),
            ]
        ]
        return -np.logaddexp(*parts).sum()

    low, high = values[posterior < 0.5], values[posterior >= 0.5]
    start = [np.log(len(high) / len(low)), high.mean(), np.log(1 / high.std()), low.mean(), np.log(1 / low.std())]
    best = optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 20_000, "maxfev": 20_000})
    share = 1 / (1 + np.exp(-best.x[0]))
    joint = [
        np.log(share) + log_density(values, best.x[1], np.exp(best.x[2])),
        np.log(1 - share) + log_density(values, best.x[3], np.exp(best.x[4])),
    ]
    np.testing.assert_allclose(posterior, np.exp(joint[0] - np.logaddexp(*joint)), atol=0.02)


def test_the_density_is_the_weibull_law_of_the_exponential():
    values = np.linspace(-3, 1, 7)
    ours = log_density(values, np.log(0.8), 2.5)
    np.testing.assert_allclose(ours, stats.weibull_min.logpdf(np.exp(values), 2.5, scale=0.8) + values)


@settings(max_examples=60)
@given(st.lists(st.floats(-50, 0, width=32), min_size=1, max_size=12), st.floats(-100, 0))
def test_pruning_depends_on_no_common_factor(logs, shift):
    found = upper_posterior(np.array(logs))
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(upper_posterior(np.array(logs) * 1.0 + round(shift)), found, atol=1e-3)


def test_few_ways_are_not_pruned():
    assert (upper_posterior(np.array([-1.0, -9.0, -30.0])) == 1).all()
    assert (upper_posterior(np.array([-5.0] * 20)) == 1).all()


def test_pruning_drops_unlikely_ways_and_never_the_likeliest():
    ballots = [ballot(f"x{i % 7}", 5 + i, float(log)) for i, log in enumerate(mixture(1, 40, 20))]
    weights = rpc(ballots)[1]
    logs = np.array([b.logprob for b in ballots])
    assert (weights == 0).sum() >= 30
    assert weights[logs.argmax()] == 1.0
    assert logs[weights > 0].min() > logs[weights == 0].max()


def test_if_every_readable_way_would_be_pruned_none_is():
    ballots = [ballot(None, 5 + i, float(log)) for i, log in enumerate(mixture(2))]
    ballots[0] = ballot("a", 99, -12.0)
    assert rpc(ballots)[0] == 0


def test_with_enough_samples_the_most_probable_answer_always_wins():
    chances = {}
    for tokens, chance in SMALL.law(1.0).items():
        answer = SMALL.text(tokens).strip() or None
        if answer is not None:
            chances[answer] = chances.get(answer, 0.0) + chance
    mode = max(chances, key=chances.get)
    results = run_many(parse_strategy("rpc:n=48,prune=false,temperature=1.5"), 20)
    for result in results:
        drawn = {c.node.tokens for c in result.candidates}
        if len(drawn) == len(SMALL.law(1.0)):  # every way was seen: the sums are the law itself
            assert result.answer == mode
    assert sum(result.answer == mode for result in results) > 15


@pytest.mark.parametrize("spec", ["rpc:n=1", "rpc:n=1,prune=false,probability=token"])
def test_one_answer_is_plain_samplings_answer_draw_for_draw(spec):
    sampled = [result.text for result in run_many(Sample(), 50)]
    assert [result.text for result in run_many(parse_strategy(spec), 50)] == sampled


def test_a_candidate_without_log_probability_is_an_error():
    with pytest.raises(ConfigError, match="log-probability"):
        rpc([ballot("a", logprob=None)])
    with pytest.raises(ConfigError, match="n=0"):
        PerplexityConsistency(n=0)
    assert "logprobs" in PerplexityConsistency().requires <= ToyBackend.capabilities


@pytest.mark.parametrize("spec", ["rpc:n=5,prune=false,probability=token"])
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))
