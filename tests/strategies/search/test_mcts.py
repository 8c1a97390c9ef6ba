"""Monte-Carlo tree search over steps: its maths on trees with known values, its choices against the textbook's."""

import asyncio
import math

import numpy as np
import pytest

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError
from ramify.scoring import Problem
from ramify.strategies import Budget, parse_strategy, solve
from ramify.strategies.kernel.trace import Grown, Scored
from ramify.strategies.search.tree_policy import Branch, choose_leaves, descend, land, puct, uct
from ramify.strategies.testing import BY_TEXT, check_strategy, rising_reward, toy_backend
from tests.strategies.laws import SMALL, assert_law, run_many

DEEP = ToyModel.random(1, depth=6)


def run(spec, backend=None, seed=0, **options):
    backend = backend or ToyBackend(DEEP, {"nano-prm": rising_reward}, max_model_len=24)
    return asyncio.run(
        solve(parse_strategy(spec), Problem("p", "xy"), backend, equivalence=BY_TEXT, seed=seed, **options)
    )


def bandit(means, rule, simulations, parallel=1):
    """Search a tree of one level whose leaves have known values."""
    root = Branch("root")
    for i, mean in enumerate(means):
        child = root.add(i, prior=1 / len(means))
        child.value = mean
        child.back_up(mean)
    for _ in range(simulations):
        leaves = choose_leaves(root, rule, parallel)
        for leaf in leaves:
            land(leaf)
            leaf.back_up(leaf.value)
    return root


@pytest.mark.parametrize("rule", [puct(), uct()], ids=["puct", "uct"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_visits_concentrate_on_the_best_child(rule, parallel):
    root = bandit([0.2, 0.9, 0.4, 0.1], rule, 400, parallel)
    visits = [child.visits for child in root.children]
    assert max(visits) == visits[1]
    assert visits[1] > 0.6 * root.visits
    assert min(visits) > 1  # and the others are still tried


def test_a_branchs_mean_is_that_of_every_evaluation_below_it():
    root = Branch("root")
    left, right = root.add("left"), root.add("right")
    deep = left.add("deep")
    for branch, value in [(left, 0.25), (right, 1.0), (deep, 0.5), (deep, 0.75), (right, 0.5)]:
        branch.back_up(value)
    assert deep.mean == pytest.approx((0.5 + 0.75) / 2)
    assert left.mean == pytest.approx((0.25 + 0.5 + 0.75) / 3)
    assert root.mean == pytest.approx((0.25 + 1.0 + 0.5 + 0.75 + 0.5) / 5)
    assert [branch.visits for branch in root.walk()] == [5, 3, 2, 2]


def test_a_virtual_loss_counts_as_a_visit_worth_nothing_and_is_taken_back_whole():
    root = Branch("root")
    for name in "ab":
        root.add(name, prior=0.5).back_up(0.8)
    before = [(branch.visits, branch.total, branch.mean) for branch in root.walk()]
    leaves = choose_leaves(root, puct(), 5)
    assert [leaf.state for leaf in leaves] == ["a", "b"]  # the third choice would repeat one
    assert [branch.in_flight for branch in root.walk()] == [2, 1, 1]
    assert root.children[0].mean == pytest.approx(0.8 / 2)
    for leaf in leaves:
        land(leaf)
    assert [branch.in_flight for branch in root.walk()] == [0, 0, 0]
    assert [(branch.visits, branch.total, branch.mean) for branch in root.walk()] == before


def test_a_virtual_loss_sends_the_next_choice_elsewhere():
    root = bandit([0.6, 0.55], puct(), 0)
    assert descend(root, puct()) is root.children[0]
    assert [leaf.state for leaf in choose_leaves(root, puct(), 2)] == [0, 1]


def test_the_rules_are_their_formulas():
    root = Branch("root")
    child = root.add("child", prior=0.3)
    other = root.add("other", prior=0.7)
    for branch, value in [(child, 0.5), (child, 1.0), (other, 0.25)]:
        branch.back_up(value)
    weight = math.log((3 + 19652 + 1) / 19652) + 1.25
    assert puct()(root, child) == pytest.approx(0.75 + 0.3 * weight * math.sqrt(3) / (1 + 2))
    assert uct()(root, child) == pytest.approx(0.75 + math.sqrt(2) * math.sqrt(math.log(3) / 2))
    assert uct(1.0)(root, Branch("new", root)) == math.inf


def textbook_expansions(result, width, simulations, rule):
    """The nodes that a plain sequential search expands, from nothing but the tree that was drawn and its values.

    Every statistic is computed anew from the list of all evaluations.
    """
    events = result.trace.events
    parent = {event.node: event.parent for event in events if isinstance(event, Grown)}
    ended = {event.node for event in events if isinstance(event, Grown) and event.finish_reason}
    value = {event.node: event.value for event in events if isinstance(event, Scored)}
    drawn = {}
    for event in events:
        if isinstance(event, Grown):
            drawn.setdefault(event.parent, []).append(event)

    def path(node):
        return [node, *path(parent[node])] if node else [0]

    evaluated, expanded = [], []
    for _ in range(simulations):
        node = 0
        while node in expanded:
            groups = {}
            for event in drawn[node]:
                groups.setdefault((event.text, event.finish_reason is None), []).append(event.node)
            above = sum(node in path(seen) for seen in evaluated)

            def merit(child, above=above, groups=groups, seen_so_far=tuple(evaluated)):
                values = [value[seen] for seen in seen_so_far if child in path(seen)]
                mean, n = sum(values) / len(values), len(values)
                if rule == "uct":
                    return mean + math.sqrt(2 * math.log(above) / n)
                prior = next(len(group) for group in groups.values() if group[0] == child) / width
                return mean + prior * (math.log((above + 19653) / 19652) + 1.25) * math.sqrt(above) / (1 + n)

            node = max((group[0] for group in groups.values()), key=merit)
        if node in ended:
            evaluated.append(node)
            continue
        expanded.append(node)
        first = {}
        for event in drawn[node]:
            first.setdefault((event.text, event.finish_reason is None), event.node)
        evaluated += first.values()
    return expanded


@pytest.mark.parametrize("rule", ["puct", "uct"])
def test_one_at_a_time_it_is_the_textbooks_sequential_search(rule):
    for seed in range(12):
        result = run(f"mcts:simulations=14,width=3,until=1,rule={rule}", seed=seed)
        order = list(dict.fromkeys(event.parent for event in result.trace.events if isinstance(event, Grown)))
        assert order == textbook_expansions(result, 3, 14, rule)


def test_the_search_goes_deeper_than_one_step():
    depths = []
    for seed in range(5):
        tree = run("mcts:simulations=12,width=3,until=1", seed=seed).trace.tree()
        depth = {0: 0}
        for node in tree[1:]:
            depth[node.id] = depth[node.parent] + 1
        depths.append(max(depth.values()))
    assert min(depths) >= 3


@pytest.mark.parametrize("depth", [1, 2])
def test_no_path_has_more_steps_than_the_depth_and_the_last_one_ends_the_answer(depth):
    result = run(f"mcts:simulations=12,width=3,until=1,depth={depth}")
    assert max(candidate.node.depth for candidate in result.candidates) == depth
    assert {candidate.node.finish_reason for candidate in result.candidates} == {"stop"}


@pytest.mark.parametrize("spec", ["mcts:width=1,simulations=9,until=1", "mcts:width=1,simulations=1,depth=1"])
def test_a_search_of_width_one_follows_the_models_law(spec):
    assert_law(run_many(parse_strategy(spec), 300, reward=lambda tokens: 0.1 + 0.2 * len(tokens)), SMALL.law(0.8))


def test_a_value_that_sees_the_way_finds_a_rare_answer_that_as_many_tokens_of_samples_miss():
    goal = (1, 2, 3, 1)  # one answer of 256 begins so
    even = ToyModel(
        DEEP.texts, {prefix: np.full(4, 0.25) if len(prefix) < 5 else np.eye(4)[0] for prefix in DEEP.table}
    )

    def reward(tokens):
        matched = next((i for i in range(min(4, len(tokens))) if tokens[i] != goal[i]), min(4, len(tokens)))
        return matched / 4

    def wins(spec):
        backend = ToyBackend(even, {"nano-prm": reward}, max_model_len=24)
        results = [run(spec, backend, seed, budget=Budget(tokens=200)) for seed in range(12)]
        return sum(result.best.tokens[:4] == goal for result in results)

    assert wins("mcts:simulations=40,width=8,until=1,select=value") > 6
    assert wins("best-of-n:n=60") < 4


def test_selections_are_what_they_say():
    by = {select: run(f"mcts:simulations=10,width=3,until=1,select={select}") for select in ("vote", "value", "visits")}
    assert len({tuple(c.node.key for c in result.candidates) for result in by.values()}) == 1
    candidates = by["value"].candidates
    assert by["value"].best.key == max(candidates, key=lambda c: c.score).node.key
    weights = {}
    for candidate in candidates:
        if candidate.answer is not None:
            weights[candidate.answer] = weights.get(candidate.answer, 0) + candidate.score
    assert by["vote"].answer == max(weights, key=weights.get)


def test_rollouts_are_candidates_and_their_values_are_the_scorers():
    backend = toy_backend()
    result = run("mcts:simulations=4,width=2,until=1,value=rollout", backend)
    assert all(candidate.node.finish_reason == "stop" for candidate in result.candidates)
    steps = {node.parent.key for node in (candidate.node for candidate in result.candidates)}
    assert len(result.candidates) > 2
    assert len(steps) > 1


def test_agreement_needs_no_scorer_and_no_verifier():
    backend = toy_backend()
    backend.capabilities = frozenset(backend.capabilities) - {"reward"}
    result = run("mcts:simulations=5,width=2,until=1,value=agreement", backend)
    assert result.ledger.verifier == 0
    assert all(0 <= candidate.score <= 1 for candidate in result.candidates)


def test_simulations_are_the_budget_of_the_search():
    for simulations in (1, 3, 6):
        result = run(f"mcts:simulations={simulations},width=2,until=1")
        expanded = {event.parent for event in result.trace.events if isinstance(event, Grown)}
        assert len(expanded) <= simulations


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("simulations=0", "at least 1"),
        ("width=0", "at least 1"),
        ("depth=0", "at least 1"),
        ("parallel=0", "at least 1"),
        ("exploration=-1", "exploration=-1"),
        ("scorer=logprob", "values from 0 to 1"),
        ("rule=best", "choose from puct, uct"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        parse_strategy(f"mcts:{options}")


@pytest.mark.parametrize(
    "spec",
    [
        "mcts:simulations=9,width=2,rule=uct,parallel=3,until=1,select=visits",
    ],
)
def test_the_laws_of_every_strategy(spec):
    check_strategy(parse_strategy(spec))
