"""Tree search for best-of-n: layers and segments, what is pruned, and the laws."""

import pytest

from ramify.errors import ConfigError
from ramify.strategies import parse_strategy
from ramify.strategies.search.treebon import TreeBoN
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many
from tests.strategies.search.trees import depth_of, endless, score, search

WARM = SMALL.law(temperature=0.8)
RUNS = 200


@pytest.mark.parametrize(
    "spec", ["treebon:n=4,m=2,segment=1", "treebon:n=6,m=3,layers=4,segment=1,agg=min", "treebon:n=4,m=4,max_tokens=3"]
)
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))


def test_one_layer_is_best_of_n_draw_for_draw():
    for seed in range(10):
        tree, pool = (search(spec, seed=seed) for spec in ("treebon:n=5,m=1,layers=1", "best-of-n:n=5"))
        assert tree.best.key == pool.best.key


@pytest.mark.parametrize(("n", "m", "layers"), [(8, 4, 3), (6, 2, 2), (6, 6, 4)])
def test_every_layer_draws_n_paths_below_the_best_of_the_one_before(n, m, layers):
    tree = search(TreeBoN(n=n, m=m, layers=layers, segment=1), model=endless(depth=8)).trace.tree()
    for depth in range(1, layers + 1):
        nodes = [node for node in tree[1:] if depth_of(tree, node) == depth]
        assert len(nodes) == n
        assert {node.num_tokens for node in nodes} == ({1} if depth < layers else {8 - layers + 1})
        parents = [node for node in nodes if node.children]
        assert len(parents) == (n // m if depth < layers else 0)
        if parents:
            assert {len(node.children) for node in parents} == {m}
            assert min(map(score, parents)) >= max(score(node) for node in nodes if not node.children)


def test_a_path_that_ends_early_waits_as_a_leaf():
    seen = 0
    for seed in range(20):
        result = search("treebon:n=6,m=2,segment=1,layers=3", seed=seed)
        early = [node for node in result.trace.tree()[1:] if node.status == "stop" and node.parent == 0]
        texts = {candidate.node.text for candidate in result.candidates}
        assert {node.text for node in early} <= texts
        assert max(c.score for c in result.candidates if c.node.finish_reason == "stop") == next(
            c.score for c in result.candidates if c.node.key == result.best.key
        )
        seen += len(early)
    assert seen


def test_one_path_follows_the_models_law():
    results = run_many(TreeBoN(n=1, m=1, segment=1), RUNS, reward=lambda tokens: 0.1 + 0.2 * len(tokens))
    assert_law(results, WARM)


def test_a_constant_scorer_leaves_the_law_unchanged():
    # The first path is never pruned, and the first leaf of equals is taken.
    assert_law(run_many(TreeBoN(n=4, m=2, segment=1), RUNS), WARM)


@pytest.mark.parametrize("spec", ["treebon:n=0", "treebon:n=6,m=4", "treebon:layers=0", "treebon:segment=0"])
def test_settings_that_cannot_work_are_refused(spec):
    with pytest.raises(ConfigError):
        parse_strategy(spec)
