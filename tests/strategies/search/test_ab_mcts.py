"""Adaptive branching: posteriors against numerical integration, the bookkeeping, resuming, and the two strategies."""

import asyncio
import hashlib

import numpy as np
import pytest
from scipy import stats

from ramify.errors import ConfigError
from ramify.randomness import BranchKey, uniform_counters
from ramify.scoring import Problem
from ramify.strategies import Budget, parse_strategy, solve
from ramify.strategies.kernel.trace import Asked, Grown
from ramify.strategies.search.ab_mcts import revision_prompt
from ramify.strategies.search.ab_mcts_posteriors import beta_draw, mixed_model_draws, normal_draw, normal_posterior
from ramify.strategies.search.ab_mcts_tree import (
    MixedBranching,
    PosteriorBranching,
    Trials,
    choose_generator,
    is_settled,
)
from ramify.strategies.testing import BY_TEXT, check_strategy, toy_backend
from tests.strategies.laws import SMALL, assert_law, run_many

SCORES = [0.2, 0.9, 0.6]
METHODS = {"a": PosteriorBranching(normal_draw), "beta": PosteriorBranching(beta_draw), "m": MixedBranching()}


def uniforms_of(seed):
    """Numbers that depend on a seed and the name alone."""
    root = BranchKey.root(seed)
    return lambda name, n: [float(u) for u in uniform_counters(root.named(name), n)]


def pairs(n, width=2):
    return np.random.default_rng(0).random((n, width))


def test_the_normal_posterior_is_the_closed_form():
    mean, weight, freedom, scale = normal_posterior(SCORES)
    n, average = 3, float(np.mean(SCORES))
    assert (weight, freedom) == (1 + n, 1 + n)
    assert mean == pytest.approx(n * average / (1 + n))
    spread = sum((score - average) ** 2 for score in SCORES)
    assert freedom * scale == pytest.approx(0.1 + spread + n / (1 + n) * average**2)
    assert normal_posterior(SCORES[::-1]) == pytest.approx(normal_posterior(SCORES))
    assert normal_posterior([]) == (0.0, 1.0, 1.0, 0.1)


def test_draws_of_the_normal_posteriors_mean_follow_its_t_law():
    mean, weight, freedom, scale = normal_posterior(SCORES)
    draws = [normal_draw(SCORES, pair) for pair in pairs(4000)]
    law = stats.t(freedom, loc=mean, scale=np.sqrt(scale / weight))
    assert stats.kstest(draws, law.cdf).pvalue > 0.001


def test_draws_of_the_beta_posterior_follow_its_law():
    draws = [beta_draw(SCORES, pair) for pair in pairs(2000)]
    assert stats.kstest(draws, stats.beta(0.5 + 1.7, 0.5 + 1.3).cdf).pvalue > 0.001


def test_the_mixed_model_agrees_with_weighing_draws_of_its_prior():
    groups = [[0.1, 0.2, 0.15], [0.9], [0.7, 0.5]]
    generator = np.random.default_rng(1)
    n = 100_000
    mu = generator.normal(0.5, 0.2, n)
    spread, noise = np.abs(generator.normal(0, 0.2, n)), np.abs(generator.normal(0, 0.3, n))
    means = [generator.normal(mu, spread) for _ in groups]
    log_weights = sum(stats.norm(m, noise).logpdf(s) for m, group in zip(means, groups, strict=True) for s in group)
    weights = np.exp(log_weights - log_weights.max())
    expected = [float(np.average(m, weights=weights)) for m in means]
    new = float(np.average(mu, weights=weights))
    draws = [mixed_model_draws(groups, row) for row in pairs(1500, 6)]
    found = np.mean([drawn for _, drawn in draws], axis=0)
    assert found == pytest.approx(expected, abs=0.03)
    assert np.mean([fresh for fresh, _ in draws]) == pytest.approx(new, abs=0.03)
    new_spread = float(np.sqrt(np.average((mu - new) ** 2 + spread**2, weights=weights)))
    assert np.std([fresh for fresh, _ in draws]) == pytest.approx(new_spread, abs=0.03)


def test_what_each_posterior_has_seen_is_derived_from_the_trials():
    trials = Trials()
    first = trials.tell(0, 0.1)
    second = trials.tell(first, 0.2)
    third = trials.tell(second, 0.3)
    other = trials.tell(0, 0.4)
    assert (trials.children(0), trials.children(first)) == ([first, other], [second])
    assert trials.below(0) == [first, second, third, other]
    assert trials.scores(trials.below(first)) == [0.1, 0.2, 0.3]
    seen = []

    def posterior(scores, uniforms):
        seen.append(list(scores))
        return 0.0 if len(seen) == 1 else 1.0 / len(seen)

    PosteriorBranching(posterior).choose(trials, uniforms_of(0))
    gen_at_root, cont_at_root, child_first, child_other = seen[:4]
    assert gen_at_root == [0.1, 0.4]
    assert cont_at_root == [0.2, 0.3]
    assert (child_first, child_other) == ([0.1, 0.2, 0.3], [0.4])


def world(parent, number):
    """A score for a new answer that depends on where it was made."""
    digest = hashlib.sha256(f"{parent}/{number}".encode()).digest()
    return digest[0] / 255


def search(method, trials, until, seed=0):
    parents = []
    while (number := len(trials.trials)) < until:
        draws = uniforms_of(seed)
        parent = METHODS[method].choose(
            trials, lambda name, n, number=number, draws=draws: draws(f"{number}/{name}", n)
        )
        parents.append(parent)
        trials.tell(parent, world(parent, number))
    return parents


@pytest.mark.parametrize("method", METHODS)
def test_a_search_that_is_stored_and_read_back_goes_on_as_if_it_had_not_stopped(method):
    whole = Trials()
    search(method, whole, 24)
    half = Trials()
    search(method, half, 11)
    resumed = Trials.from_json(half.to_json())
    search(method, resumed, 24)
    assert resumed.to_json() == whole.to_json()


@pytest.mark.parametrize("method", METHODS)
def test_the_first_answer_is_fresh_and_both_width_and_depth_are_used(method):
    parents = [search(method, Trials(), 24, seed) for seed in range(6)]
    assert all(found[0] == 0 for found in parents)
    assert any(parent for found in parents for parent in found)
    assert all(found.count(0) > 1 for found in parents)


@pytest.mark.parametrize("method", METHODS)
def test_it_goes_deeper_below_a_good_answer_than_below_a_bad_one(method):
    chosen = []
    for seed in range(60):
        trials = Trials()
        for score in (0.95, 0.05):
            answer = trials.tell(0, score)
            for _ in range(2):
                trials.tell(answer, score + 0.01 * (0.5 - score))
        chosen.append(METHODS[method].choose(trials, uniforms_of(seed)))
    good, bad = trials.below(1), trials.below(4)
    assert sum(node in good for node in chosen) > 2 * sum(node in bad for node in chosen)


def test_a_subtree_that_goes_on_giving_one_score_is_left():
    assert not is_settled([0.5] * 3)
    assert is_settled([0.5] * 4)
    assert is_settled([0.5, 0.5, 0.5, 0.9])
    assert not is_settled([0.5, 0.5, 0.4, 0.9])
    trials = Trials()
    best = trials.tell(0, 1.0)
    for _ in range(3):
        trials.tell(best, 1.0)
    assert {MixedBranching().choose(trials, uniforms_of(seed)) for seed in range(40)} == {0}


def test_the_better_generator_is_chosen_more_often():
    trials = Trials()
    for score in (0.8, 0.9, 0.85, 0.9):
        trials.tell(0, score, generator=1)
        trials.tell(0, 1 - score, generator=0)
    chosen = [choose_generator(trials, 2, beta_draw, uniforms_of(seed)) for seed in range(200)]
    assert chosen.count(1) > 170
    assert choose_generator(trials, 1, beta_draw, uniforms_of(0)) == 0


@pytest.mark.parametrize(("parent", "score"), [(1, 0.5), (-1, 0.5), (0, 1.5), (0, -0.1), (0, float("nan"))])
def test_a_trial_that_cannot_be_is_refused(parent, score):
    with pytest.raises(ConfigError, match="name a node"):
        Trials().tell(parent, score)


def run(spec, seed=0, **options):
    backend = toy_backend()
    options = {"equivalence": BY_TEXT, "seed": seed, **options}
    return asyncio.run(solve(parse_strategy(spec), Problem("p", "xy"), backend, **options))


@pytest.mark.parametrize("spec", ["ab-mcts-a:trials=1", "ab-mcts-m:trials=1,until=1"])
def test_one_trial_follows_the_models_law(spec):
    assert_law(run_many(parse_strategy(spec), 300), SMALL.law(0.8))


def test_every_trial_is_a_candidate_and_the_best_score_wins():
    result = run("ab-mcts-a:trials=7,until=1")
    assert len(result.candidates) == 7
    assert max(c.score for c in result.candidates) == next(
        c.score for c in result.candidates if c.node.key == result.best.key
    )


def test_a_refinement_keeps_some_steps_of_its_parent_and_draws_others():
    shared = 0
    for seed in range(6):
        result = run("ab-mcts-a:trials=10,until=1", seed=seed)
        gone_on = [event.parent for event in result.trace.events if isinstance(event, Grown) and event.parent]
        shared += len(gone_on) - len(set(gone_on))
        assert max(candidate.node.depth for candidate in result.candidates) > 1
    assert shared > 6  # steps inside an answer that more than one answer goes on from


def test_asking_shows_the_parents_answer_and_takes_the_reply_as_a_candidate():
    result = run("ab-mcts-a:trials=9,refine=ask,template={answer},prior=beta")
    asked = [event for event in result.trace.events if isinstance(event, Asked)]
    assert asked
    texts = [candidate.node.text for candidate in result.candidates]
    assert len(texts) == 9
    assert {event.text for event in asked} <= set(texts)
    assert result.ledger.program == sum(event.num_tokens for event in asked)
    assert all(candidate.score is not None for candidate in result.candidates)


def test_a_chat_is_asked_in_its_last_message():
    chat = ({"role": "system", "content": "s"}, {"role": "user", "content": "q"})
    asked = revision_prompt(chat, "{problem}|{answer}|{score}", "a {x}", 0.25)
    assert asked == ({"role": "system", "content": "s"}, {"role": "user", "content": "q|a {x}|0.25"})
    assert revision_prompt("q", "{problem}|{answer}", "a", 0.0) == "q|a"
    with pytest.raises(ConfigError, match="refine=continue"):
        revision_prompt((1, 2), "{answer}", "a", 0.0)


def test_generators_draw_at_their_temperatures():
    frozen = run("ab-mcts-a:trials=6,temperatures=0,until=1")
    (greedy,) = toy_backend().model.law(temperature=0)
    assert {c.node.tokens for c in frozen.candidates} == {greedy}
    both = [run("ab-mcts-m:trials=8,temperatures=0+1.5,until=1", seed=seed) for seed in range(4)]
    assert len({c.node.tokens for result in both for c in result.candidates}) > 2


def test_a_cut_run_has_the_best_of_the_answers_so_far():
    result = run("ab-mcts-m:trials=30,until=1", budget=Budget(tokens=40))
    assert result.stop_reason == "budget"
    assert 1 <= len(result.candidates) < 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("trials=0", "trials=0"),
        ("parallel=0", "parallel=0"),
        ("scorer=logprob", "from 0 to 1"),
        ("template=again", "must show"),
        ("template={answer}{other}", "can stand in it"),
        ("temperatures=warm", "0.6\\+1.0"),
        ("temperatures=-1", "0.6\\+1.0"),
    ],
)
@pytest.mark.parametrize("name", ["ab-mcts-a", "ab-mcts-m"])
def test_settings_that_cannot_work_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        parse_strategy(f"{name}:{options}")


@pytest.mark.parametrize(
    "spec",
    [
        "ab-mcts-a:trials=6,prior=beta,temperatures=0.5+1.0,parallel=3,select=vote",
    ],
)
def test_the_laws_of_every_strategy(spec):
    check_strategy(parse_strategy(spec))
