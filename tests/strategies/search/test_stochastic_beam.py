"""Stochastic beam search: the law of the next beam, annealing, self-evaluation, and the laws."""

import math
from collections import Counter

import numpy as np
import pytest

from ramify.backends.toy import ToyModel
from ramify.errors import ConfigError
from ramify.scoring import RuleCheck
from ramify.scoring.p_true import PTrue
from ramify.scoring.prm import ProcessReward
from ramify.strategies import parse_strategy
from ramify.strategies.search.stochastic_beam import StochasticBeam
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, chi_square, run_many
from tests.strategies.search.trees import TOKEN, depth_of, endless, levels, score, search

WARM = SMALL.law(temperature=0.8)
RUNS = 200
PRM = ProcessReward()


@pytest.mark.parametrize(
    "spec",
    [
        "stochastic-beam:n=6,m=2,until=1,scorer=prm",
        "stochastic-beam:n=4,m=4,lam=1,tau=0,scorer=rule",
        "stochastic-beam:n=4,m=2,scorer=prm,select=best,max_tokens=3",
    ],
)
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))


def test_a_level_draws_n_paths_and_keeps_n_over_m():
    result = search(StochasticBeam(n=8, m=4, until=TOKEN, scorer=PRM), model=endless())
    assert list(levels(result).values()) == [8] * 5
    tree = result.trace.tree()
    kept = Counter(depth_of(tree, node) for node in tree[1:] if node.children)
    assert set(kept.values()) == {2}


ONE_TOKEN = ToyModel.random(5, texts=("", "a", "b\n", "c\n"), depth=2)
CONFIDENCE = {(): 0.2, (1,): 0.9, (2,): 0.5, (3,): 0.1}


@pytest.mark.parametrize(("lam", "tau"), [(0.5, 0.5), (0.0, 1.0), (1.0, 0.4), (0.3, 2.0)])
def test_survivors_are_drawn_in_proportion_to_the_power_of_their_score(lam, tau):
    # One token, then the end. Of two draws one is kept, in proportion to (P^lam * C^(1 - lam)) ** (1 / tau).
    plain = ONE_TOKEN.conditional((), 1.0)
    warm = ONE_TOKEN.conditional((), 0.8)
    confidence = [CONFIDENCE[tuple(t for t in (token,) if t)] for token in range(4)]
    weights = [(plain[t] ** lam * confidence[t] ** (1 - lam)) ** (1 / tau) for t in range(4)]
    law = Counter()
    for i in range(4):
        for j in range(4):
            chance = warm[i] * warm[j] / (weights[i] + weights[j])
            law[(i,) if i == 0 else (i, 0)] += chance * weights[i]
            law[(j,) if j == 0 else (j, 0)] += chance * weights[j]
    strategy = StochasticBeam(n=2, m=2, until=TOKEN, scorer=PRM, lam=lam, tau=tau)

    def reward(tokens):
        return CONFIDENCE[tuple(token for token in tokens if token)]

    results = run_many(strategy, 300, reward=reward, model=ONE_TOKEN)
    assert chi_square(Counter(result.best.tokens for result in results), law, 300) > 1e-3


def test_at_temperature_zero_the_best_are_kept():
    for seed in range(10):
        result = search("stochastic-beam:n=6,m=3,until=1,lam=0,tau=0,scorer=prm", seed=seed)
        tree = result.trace.tree()
        worth = {0: 0.0}
        for node in tree[1:]:
            worth[node.id] = worth[node.parent] + math.log(score(node))
        for depth in set(levels(result)):
            nodes = [node for node in tree[1:] if depth_of(tree, node) == depth]
            gone = [worth[node.id] for node in nodes if node.status == "dropped"]
            kept = [worth[node.id] for node in nodes if node.status != "dropped"]
            assert not gone or min(kept) >= max(gone) - 1e-9


def test_annealing_to_nothing_keeps_the_best_from_the_second_level_on():
    drawn_at_first = 0
    for seed in range(20):
        spec = "stochastic-beam:n=4,m=4,until=1,lam=1,tau=5,alpha=0,scorer=prm"
        tree = search(spec, seed=seed, model=endless(9, 4)).trace.tree()
        worth = {node.id: node.logprob for node in tree[1:]}
        for depth in (1, 2):
            nodes = [node for node in tree[1:] if depth_of(tree, node) == depth]
            first_best = max(nodes, key=lambda node: (worth[node.id], -node.id))
            (kept,) = [node for node in nodes if node.children]
            if depth == 1:
                drawn_at_first += kept is not first_best
            else:
                assert kept is first_best
    assert drawn_at_first > 0


def test_the_model_judges_itself_behind_the_suffix():
    model = ToyModel.random(2, texts=("", "a", "b\n", "c\n"), depth=6)
    judge = PTrue(suffix="a", yes="b\n", no="c\n")
    strategy = StochasticBeam(n=4, m=4, until=TOKEN, scorer=judge, lam=0, tau=0, iters=1)
    for seed in range(10):
        result = search(strategy, model=model, seed=seed)
        tree = result.trace.tree()
        for node in tree[1:]:
            prefix = model_ids(model, node.text)
            yes, no = (float(model.conditional((*prefix, 1), 1.0)[token]) for token in (2, 3))
            assert score(node) == pytest.approx(yes / (yes + no))
        kept = [node for node in tree[1:] if node.status != "dropped"]
        assert [score(node) for node in kept] == [max(score(node) for node in tree[1:])]
        assert result.ledger.probe == 4 * 4


def model_ids(model, text):
    """The tokens of one token's text; none of the end's."""
    return tuple(token for token in range(1, len(model.texts)) if model.texts[token] == text)


def test_one_path_follows_the_models_law():
    results = run_many(
        StochasticBeam(n=1, m=1, until=TOKEN, scorer=PRM), RUNS, reward=lambda tokens: 0.1 + 0.2 * len(tokens)
    )
    assert_law(results, WARM)


def test_a_constant_judge_alone_leaves_the_law_unchanged():
    # Without the model's own probability every choice is uniform.
    assert_law(run_many(StochasticBeam(n=3, m=3, until=TOKEN, scorer=PRM, lam=0), RUNS), WARM)


def test_with_several_places_each_answer_is_there_as_often_as_the_law_says():
    results = run_many(StochasticBeam(n=6, m=2, until=TOKEN, scorer=PRM, lam=0), RUNS)
    for answer in (tokens for tokens, chance in WARM.items() if chance > 0.05):
        shares = [sum(c.node.tokens == answer for c in result.candidates) / 3 for result in results]
        error = np.std(shares) / math.sqrt(RUNS) + 1e-9
        assert abs(np.mean(shares) - WARM[answer]) < 4 * error


def test_a_confidence_of_zero_and_a_step_that_cannot_be_are_survived():
    never = RuleCheck(lambda text, problem: False)
    result = search(StochasticBeam(n=4, m=2, until=TOKEN, scorer=never))
    assert all(math.isfinite(candidate.score) for candidate in result.candidates)
    assert result.best.finish_reason == "stop"


@pytest.mark.parametrize(
    "spec",
    [
        "stochastic-beam:n=6,m=4",
        "stochastic-beam:lam=2",
        "stochastic-beam:alpha=-1",
        "stochastic-beam:tau=-1",
        "stochastic-beam:iters=0",
        "stochastic-beam:scorer=logprob",
    ],
)
def test_settings_that_cannot_work_are_refused(spec):
    with pytest.raises(ConfigError):
        parse_strategy(spec)
