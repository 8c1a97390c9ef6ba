"""A*-decoding: what is expanded, when it stops, what is remembered, and the laws."""

import pytest

from ramify.errors import ConfigError
from ramify.strategies import parse_strategy
from ramify.strategies.kernel.trace import Dropped, Grown
from ramify.strategies.search.a_star import AStar
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many
from tests.strategies.search.trees import TOKEN, depth_of, endless, score, search

WARM = SMALL.law(temperature=0.8)
RUNS = 200


@pytest.mark.parametrize(
    "spec", ["a-star:m=2", "a-star:m=2,until=1,weight=0.5,width=2", "a-star:m=2,until=1,max_tokens=2"]
)
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))


def expansions(result):
    """The expanded nodes in order."""
    parents = [event.parent for event in result.trace.events if isinstance(event, Grown)]
    return [parent for i, parent in enumerate(parents) if i == 0 or parent != parents[i - 1]]


def rank(tree, node, weight):
    """Lowest f = g + h first, then the most steps, then the earliest launch; worked out from the trace."""
    path = [node]
    while path[-1].parent != 0:
        path.append(tree[path[-1].parent])
    cost = sum(weight * (1 - score(step)) for step in reversed(path))
    return (round(cost + 1 - score(node), 9), -depth_of(tree, node), node.id)


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_the_best_of_the_frontier_is_always_the_one_expanded(weight):
    for seed in range(15):
        result = search(AStar(m=3, until=TOKEN, weight=weight), seed=seed)
        tree = result.trace.tree()
        frontier, order = set(tree[0].children), expansions(result)
        for parent in order[1:]:
            assert parent == min(frontier, key=lambda i: rank(tree, tree[i], weight))
            frontier = frontier - {parent} | set(tree[parent].children)
        last = min(frontier, key=lambda i: rank(tree, tree[i], weight))
        assert tree[last].status == "stop"
        assert tree[last].best
        assert result.stop_reason == "finished"


def test_without_a_cost_of_the_way_it_runs_down_the_path_that_pleases():
    # Every step is better than the one before, so nothing is expanded twice at one depth.
    result = search(AStar(m=3, until=TOKEN), model=endless(), reward=lambda tokens: len(tokens) / 10)
    assert [depth_of(result.trace.tree(), result.trace.tree()[i]) for i in expansions(result)] == [0, 1, 2, 3, 4]


def test_a_cost_of_the_way_looks_at_shorter_paths_first():
    # All rewards are equal: every further step costs as much again, and the search is by breadth.
    result = search(AStar(m=2, until=TOKEN, weight=1.0, iters=7), model=endless(), reward=lambda tokens: 0.5)
    assert [depth_of(result.trace.tree(), result.trace.tree()[i]) for i in expansions(result)] == [0, 1, 1, 2, 2, 2, 2]


def test_another_cost_of_the_way_can_be_plugged_in():
    class Lengthy(AStar):
        def step_cost(self, reward):
            return 1.0

    result = search(Lengthy(m=2, until=TOKEN, iters=7), model=endless())
    assert [depth_of(result.trace.tree(), result.trace.tree()[i]) for i in expansions(result)] == [0, 1, 1, 2, 2, 2, 2]


def test_the_worst_beyond_the_width_are_dropped():
    result = search(AStar(m=4, until=TOKEN, weight=1.0, width=5, iters=8), model=endless())
    tree = result.trace.tree()
    live, largest = set(), 0
    for event in result.trace.events:
        if isinstance(event, Grown):
            live = live - {event.parent} | {event.node}
        elif isinstance(event, Dropped):
            worst = max(live - set(event.nodes), key=lambda i: rank(tree, tree[i], 1.0))
            assert all(rank(tree, tree[i], 1.0) > rank(tree, tree[worst], 1.0) for i in event.nodes)
            live -= set(event.nodes)
            largest = max(largest, len(live))
    assert largest == 5


def test_a_cut_answer_is_no_goal():
    result = search(AStar(m=3, until=TOKEN, sampling=parse_strategy("sample:max_tokens=2").sampling), model=endless())
    assert all(candidate.node.finish_reason == "length" for candidate in result.candidates)
    assert len(expansions(result)) > 2


def test_the_search_ends_after_its_expansions():
    result = search(AStar(m=2, until=TOKEN, iters=3), model=endless())
    assert len(expansions(result)) == 3
    assert result.best.open


def test_one_continuation_follows_the_models_law():
    results = run_many(AStar(m=1, until=TOKEN), RUNS, reward=lambda tokens: 0.1 + 0.2 * len(tokens))
    assert_law(results, WARM)


def test_a_constant_scorer_leaves_the_law_unchanged():
    # Of equal states the deepest is expanded, of these the first drawn: always the first child.
    assert_law(run_many(AStar(m=3, until=TOKEN), RUNS), WARM)


@pytest.mark.parametrize(
    "spec", ["a-star:m=0", "a-star:iters=0", "a-star:width=0", "a-star:weight=-1", "a-star:scorer=logprob"]
)
def test_settings_that_cannot_work_are_refused(spec):
    with pytest.raises(ConfigError):
        parse_strategy(spec)
