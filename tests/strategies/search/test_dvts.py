"""Diverse verifier tree search: subtrees that do not compete, what is pooled, and the laws."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from ramify.errors import ConfigError
from ramify.strategies import parse_strategy
from ramify.strategies.search.dvts import DVTS
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many
from tests.strategies.search.trees import (
    TOKEN,
    conditionals,
    depth_of,
    endless,
    levels,
    right_so_far,
    score,
    search,
    weighted_winner,
)

WARM = SMALL.law(temperature=0.8)
RUNS = 200


@pytest.mark.parametrize("spec", ["dvts:n=4,m=2", "dvts:n=6,m=3,until=1,select=vote", "dvts:n=4,m=1,max_tokens=3"])
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))


def subtree_of(tree, node, m):
    """Which subtree a node belongs to: the first n nodes are the children of the root, m to a subtree."""
    while node.parent != 0:
        node = tree[node.parent]
    return (node.id - 1) // m


def test_every_subtree_goes_on_from_its_own_best_child_alone():
    for seed in range(10):
        tree = search("dvts:n=12,m=3,until=1", seed=seed).trace.tree()
        siblings = {}
        for node in tree[1:]:
            siblings.setdefault((subtree_of(tree, node, 3), depth_of(tree, node)), []).append(node)
        for family in siblings.values():
            assert len(family) == 3
            best = max(family, key=score)
            assert all(bool(node.children) == (node is best and node.status == "open") for node in family)


def test_a_subtree_is_never_closed_for_another_one():
    # The reward of the first subtree is far above all others, yet each of the four goes to its end.
    result = search(DVTS(n=8, m=2, until=TOKEN), model=endless())
    assert list(levels(result).values()) == [8] * 5
    ends = [candidate.node for candidate in result.candidates]
    roots = {tuple(node.tokens[:1]) for node in ends}
    assert len(roots) == 4


def test_the_pool_is_the_last_children_of_every_subtree_each_answer_once():
    for seed in range(10):
        result = search("dvts:n=12,m=3,until=1", seed=seed)
        tree = result.trace.tree()
        last = {}
        for node in tree[1:]:
            last.setdefault(subtree_of(tree, node, 3), {}).setdefault(depth_of(tree, node), []).append(node)
        ends = [node for depths in last.values() for node in depths[max(depths)]]
        texts = {("".join(path_of(tree, node)), node.status == "stop") for node in ends}
        found = [(candidate.node.text, candidate.node.finish_reason == "stop") for candidate in result.candidates]
        assert Counter(found) == Counter(texts)


def path_of(tree, node):
    """The parts of a node's text from the root on."""
    return [] if node.parent is None else [*path_of(tree, tree[node.parent]), node.text]


def test_votes_are_weighed_over_distinct_answers():
    for seed in range(20):
        result = search("dvts:n=12,m=3,select=vote", seed=seed)
        sums = weighted_winner(result.candidates)
        assert sums[result.answer] == max(sums.values(), default=0)


def test_one_path_follows_the_models_law():
    results = run_many(DVTS(n=1, m=1, until=TOKEN), RUNS, reward=lambda tokens: 0.1 + 0.2 * len(tokens))
    assert_law(results, WARM)


def test_a_constant_scorer_leaves_the_law_unchanged():
    # The first child of the first subtree is the best at every step, and it is drawn from the model.
    assert_law(run_many(DVTS(n=6, m=3, until=TOKEN), RUNS), WARM)


@pytest.mark.parametrize(("n", "m"), [(4, 2), (3, 1), (3, 3)])
def test_a_perfect_scorer_succeeds_when_some_subtree_does(n, m):
    right = max(WARM, key=WARM.get)
    one = float(np.prod([1 - (1 - p) ** m for p in conditionals(SMALL, right)]))
    results = run_many(DVTS(n=n, m=m, until=TOKEN), RUNS, reward=right_so_far(right))
    solved = sum(result.best.tokens == right for result in results)
    assert stats.binomtest(solved, RUNS, 1 - (1 - one) ** (n // m)).pvalue > 1e-3


@pytest.mark.parametrize("spec", ["dvts:n=0", "dvts:n=6,m=4", "dvts:iters=0", "dvts:select=vote,scorer=logprob"])
def test_settings_that_cannot_work_are_refused(spec):
    with pytest.raises(ConfigError):
        parse_strategy(spec)
