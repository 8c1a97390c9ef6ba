"""Reward balanced search: exact shares, a constant width, and the laws."""

from collections import Counter

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.strategies import parse_strategy
from ramify.strategies.resampling import softmax
from ramify.strategies.search.rebase import Rebase, share_out
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many
from tests.strategies.search.trees import TOKEN, depth_of, endless, levels, score, search, weighted_winner

WARM = SMALL.law(temperature=0.8)
RUNS = 200


@pytest.mark.parametrize("spec", ["rebase:n=5", "rebase:n=6,until=1,tau=0.05,select=best", "rebase:n=3,max_tokens=3"])
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))


@pytest.mark.parametrize(
    ("shares", "places", "expected"),
    [
        ([0.5, 0.25, 0.25], 4, [2, 1, 1]),
        ([1 / 3, 1 / 3, 1 / 3], 4, [2, 1, 1]),
        ([1 / 3, 1 / 3, 1 / 3], 2, [1, 1, 0]),
        ([0.05, 0.9, 0.05], 3, [0, 3, 0]),
        ([0.6, 0.4], 5, [3, 2]),
        ([0.1, 0.1, 0.8], 1, [0, 0, 1]),
        ([1.0], 7, [7]),
        ([0.25] * 4, 4, [1, 1, 1, 1]),
    ],
)
def test_shares_are_whole_and_what_is_left_goes_to_the_largest_remainders(shares, places, expected):
    assert share_out(np.array(shares), places) == expected


def test_shares_always_sum_to_the_width_and_none_is_off_by_a_whole_place():
    generator = np.random.default_rng(0)
    for _ in range(300):
        shares = generator.dirichlet(np.full(generator.integers(1, 9), 0.5))
        places = int(generator.integers(1, 40))
        found = share_out(shares, places)
        assert sum(found) == places
        assert np.abs(np.array(found) - shares * places).max() < 1 + 1e-6


def test_every_depth_has_n_paths_and_a_finished_one_holds_its_place():
    assert list(levels(search(Rebase(n=7, until=TOKEN), model=endless())).values()) == [7] * 5
    for seed in range(20):
        result = search("rebase:n=8,until=1", seed=seed)
        tree = result.trace.tree()
        ended = Counter(depth_of(tree, node) for node in tree[1:] if node.status == "stop")
        for depth, drawn in sorted(levels(result).items()):
            assert drawn == 8 - sum(ended[above] for above in range(1, depth))


def test_paths_are_continued_as_often_as_the_softmax_of_their_rewards_says():
    for seed in range(20):
        tree = search("rebase:n=8,until=1,tau=0.3", seed=seed).trace.tree()
        by_depth = {}
        for node in tree[1:]:
            by_depth.setdefault(depth_of(tree, node), []).append(node)
        for nodes in by_depth.values():
            going = [node for node in nodes if node.status in ("open", "dropped")]
            if going:
                shares = share_out(softmax(np.array([score(node) for node in going]) / 0.3), len(going))
                assert [len(node.children) for node in going] == shares


def test_a_low_temperature_gives_all_places_to_the_best_path():
    tree = search(Rebase(n=6, until=TOKEN, tau=1e-3), model=endless()).trace.tree()
    for depth in range(1, 5):
        nodes = [node for node in tree[1:] if depth_of(tree, node) == depth]
        best = max(score(node) for node in nodes)
        assert all(score(node) == best for node in nodes if node.children)


def test_votes_are_weighed_over_distinct_answers():
    for seed in range(20):
        result = search("rebase:n=9,until=1", seed=seed)
        assert len({candidate.node.tokens for candidate in result.candidates}) == len(result.candidates)
        sums = weighted_winner(result.candidates)
        assert sums[result.answer] == max(sums.values(), default=0)


def test_one_path_follows_the_models_law():
    results = run_many(Rebase(n=1, until=TOKEN), RUNS, reward=lambda tokens: 0.1 + 0.2 * len(tokens))
    assert_law(results, WARM)


def test_a_constant_scorer_leaves_the_law_unchanged():
    # Equal rewards continue every path once: n independent answers, of which the first is taken.
    assert_law(run_many(Rebase(n=4, until=TOKEN, select="best"), RUNS), WARM)


@pytest.mark.parametrize("spec", ["rebase:n=0", "rebase:iters=0", "rebase:tau=0", "rebase:scorer=logprob"])
def test_settings_that_cannot_work_are_refused(spec):
    with pytest.raises(ConfigError):
        parse_strategy(spec)
