"""The law of each method's outputs, against the toy model's exact enumeration."""

import math
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

from ramify.scoring import KeyedBy, RuleCheck
from ramify.strategies import BestOfN, Budget, ParticleFilter, Sample, SelfConsistency, parse_strategy
from tests.strategies.laws import BY_TEXT, SMALL, assert_law, chi_square, run_many

WARM = SMALL.law(temperature=0.8)
RUNS = 250


def test_the_toy_models_law_sums_to_one_at_every_temperature():
    for temperature in (0, 0.5, 0.8, 1.0, 2.0):
        assert math.isclose(sum(SMALL.law(temperature).values()), 1.0)


@pytest.mark.parametrize("temperature", [0.8, 1.0])
def test_plain_sampling_follows_the_models_law(temperature):
    results = run_many(parse_strategy(f"sample:temperature={temperature}"), 2 * RUNS)
    assert_law(results, SMALL.law(temperature))


def test_sampling_at_temperature_zero_is_greedy_for_every_seed():
    (greedy,) = SMALL.law(temperature=0)
    assert {result.best.tokens for result in run_many(parse_strategy("sample:temperature=0"), 20)} == {greedy}


@pytest.mark.parametrize("spec", ["self-consistency:n=1", "best-of-n:n=1", "best-of-n:n=1,select=soft"])
def test_one_answer_is_plain_samplings_answer_draw_for_draw(spec):
    sampled = [result.text for result in run_many(Sample(), 50)]
    assert [result.text for result in run_many(parse_strategy(spec), 50)] == sampled


@pytest.mark.parametrize(
    "spec",
    [
        "beam:n=1,m=1",
        "beam:n=1,m=1,until=1",
        "particle-filter:n=1",
        "particle-filter:n=1,until=1,potential=incremental",
    ],
)
def test_a_step_method_with_one_path_follows_the_models_law(spec):
    assert_law(run_many(parse_strategy(spec), RUNS, reward=lambda tokens: 0.1 + 0.2 * len(tokens)), WARM)


@pytest.mark.parametrize(
    "spec",
    [
        "particle-filter:n=4",
        "particle-filter:n=3,until=1,potential=incremental,select=sample",
        "particle-filter:n=3,until=1,resampling=multinomial,select=sample",
        "best-of-n:n=4,select=soft",
        "best-of-n:n=4,ties=random",
        "best-of-n:n=4",
    ],
)
def test_a_constant_scorer_leaves_the_law_unchanged(spec):
    assert_law(run_many(parse_strategy(spec), RUNS), WARM)


def test_equal_scores_with_random_ties_choose_uniformly_from_the_pool():
    places = Counter()
    for result in run_many(BestOfN(n=4, ties="random"), RUNS):
        places[[candidate.node.key for candidate in result.candidates].index(result.best.key)] += 1
    assert chi_square(places, dict.fromkeys(range(4), 0.25), RUNS) > 1e-3


def test_soft_best_of_n_draws_in_proportion_to_the_exponential_of_the_score():
    strategy = BestOfN(n=2, select="soft", tau=0.5)
    chances, firsts = [], 0
    for result in run_many(strategy, RUNS, reward=lambda tokens: tokens[0] / 2):
        weights = np.exp([candidate.score / 0.5 for candidate in result.candidates])
        chances.append(weights[0] / weights.sum())
        firsts += result.best.key == result.candidates[0].node.key
    spread = math.sqrt(sum(chance * (1 - chance) for chance in chances))
    assert abs(firsts - sum(chances)) < 4 * spread


@pytest.mark.parametrize("n", [1, 3])
def test_a_perfect_scorer_succeeds_when_any_sample_does(n):
    right = max(WARM, key=WARM.get)
    check = RuleCheck(lambda text, problem: text == SMALL.text(right))
    results = run_many(BestOfN(n=n, scorer=check), RUNS)
    solved = [result.text == SMALL.text(right) for result in results]
    coverage = [any(c.node.text == SMALL.text(right) for c in result.candidates) for result in results]
    assert solved == coverage
    chance = 1 - (1 - sum(p for tokens, p in WARM.items() if SMALL.text(tokens) == SMALL.text(right))) ** n
    assert stats.binomtest(sum(solved), RUNS, chance).pvalue > 1e-3


def test_self_consistency_finds_the_mode_more_often_than_one_sample_does():
    by_answer = Counter()
    for tokens, chance in WARM.items():
        by_answer[SMALL.text(tokens).strip() or None] += chance
    by_answer.pop(None, None)
    mode = by_answer.most_common(1)[0][0]
    hits = {n: sum(r.answer == mode for r in run_many(SelfConsistency(n=n), 200)) for n in (1, 15)}
    assert hits[15] > hits[1]


def test_an_answer_that_cannot_be_read_never_wins_a_vote():
    only_b = KeyedBy(lambda text, problem: "b" if text.startswith("b") else None)
    for result in run_many(SelfConsistency(n=6), 40, equivalence=only_b):
        readable = [candidate.answer for candidate in result.candidates if candidate.answer is not None]
        assert result.answer == (readable[0] if readable else None)


def tilted_reward(tokens):
    """Prefers the second token, more so late in the answer."""
    return (1 + sum(token == 2 for token in tokens) * 2 + (len(tokens) == 3)) / 8


class RecordedFilter(ParticleFilter):
    """A particle filter that keeps its last unnormalised weights, by problem."""

    seen: ClassVar[dict] = {}

    def _report(self, context, particles, rewards, log_weights):
        self.seen[context.problem.id] = (list(particles), np.exp(log_weights))
        return super()._report(context, particles, rewards, log_weights)


@pytest.mark.parametrize("resampling", ["systematic", "stratified", "residual", "multinomial"])
def test_incremental_weights_are_unbiased_for_the_law_times_the_reward(resampling):
    until = parse_strategy("particle-filter:until=1").until
    strategy = RecordedFilter(n=3, until=until, potential="incremental", resampling=resampling, ess=1.0)
    run_many(strategy, RUNS, reward=tilted_reward)
    for answer in (tokens for tokens, chance in WARM.items() if chance > 0.05):  # rarer ones have no normal error
        estimates = [
            sum(w for node, w in zip(particles, weights, strict=True) if node.tokens == answer) / 3
            for particles, weights in strategy.seen.values()
        ]
        error = np.std(estimates) / math.sqrt(RUNS) + 1e-9
        assert abs(np.mean(estimates) - WARM[answer] * tilted_reward(answer)) < 4 * error


def test_many_particles_sample_the_law_times_the_reward():
    target = {tokens: chance * tilted_reward(tokens) for tokens, chance in WARM.items()}
    total = sum(target.values())
    strategy = parse_strategy("particle-filter:n=24,until=1,potential=incremental,ess=0.5,select=sample")
    assert_law(run_many(strategy, 200, reward=tilted_reward), {k: v / total for k, v in target.items()})


def test_a_higher_budget_never_lowers_the_number_of_answers():
    counts = []
    for tokens in (2, 6, 12, 30, 200):
        results = run_many(SelfConsistency(n=8), 30, budget=Budget(tokens=tokens), equivalence=BY_TEXT)
        counts.append(sum(len(result.candidates) for result in results))
    assert counts == sorted(counts)
    assert counts[-1] == 8 * 30
