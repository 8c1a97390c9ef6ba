"""Beam search and lookahead search: widths, distinct answers, what is judged, and the laws."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from ramify import registry
from ramify.backends.toy import ToyModel
from ramify.errors import ConfigError
from ramify.strategies import Beam, parse_strategy
from ramify.strategies.kernel.trace import Dropped
from ramify.strategies.search.lookahead import Lookahead
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, chi_square, run_many
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


@pytest.mark.parametrize("spec", ["beam:n=4,m=2,until=1,lookahead=2", "lookahead:n=4,m=2", "beam:n=3,m=1,select=vote"])
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))


@pytest.mark.parametrize(("n", "m"), [(8, 8), (8, 4), (8, 2), (8, 1), (6, 3)])
def test_every_level_draws_n_paths_and_keeps_n_over_m(n, m):
    result = search(Beam(n=n, m=m, until=TOKEN), model=endless())
    tree = result.trace.tree()
    assert list(levels(result).values()) == [n] * 5
    parents = Counter(depth_of(tree, node) for node in tree[1:] if node.children)
    assert [parents[depth] for depth in range(1, 5)] == [n // m] * 4


def test_eight_paths_of_eight_continuations_are_one_kept_path_and_eight_draws():
    tree = search(Beam(n=8, m=8, until=TOKEN), model=endless()).trace.tree()
    assert [len(node.children) for node in tree if node.children] == [8] * 5


def test_a_path_drawn_twice_is_kept_and_counted_once():
    for seed in range(20):
        result = search("beam:n=8,m=2,until=1", seed=seed)
        texts = [candidate.node.tokens for candidate in result.candidates]
        assert len(set(texts)) == len(texts)
        tree = result.trace.tree()
        continued = [node for node in tree[1:] if node.children]
        paths = [tuple(text_of(tree, node)) for node in continued]
        assert len(set(paths)) == len(paths)


def text_of(tree, node):
    """The parts of a node's text from the root on."""
    return [] if node.parent is None else [*text_of(tree, tree[node.parent]), node.text]


def test_votes_are_weighed_over_distinct_answers_only():
    for seed in range(20):
        result = search("beam:n=9,m=3,select=vote", seed=seed)
        sums = weighted_winner(result.candidates)
        assert sums[result.answer] == max(sums.values(), default=0)


def test_a_step_is_judged_by_where_it_leads():
    # The first step "a" looks better than "b", but greedy decoding makes "a a" of it, and "b b" of the other.
    table = {(): np.array([0, 0.5, 0.5]), (1,): np.array([0, 0.9, 0.1]), (2,): np.array([0, 0.1, 0.9])}
    table |= {(i, j): np.array([1.0, 0, 0]) for i in (1, 2) for j in (1, 2)}
    model = ToyModel(("", "a ", "b "), table)
    worth = {(1,): 0.6, (2,): 0.5, (1, 1): 0.1, (2, 2): 0.9, (1, 2): 0.4, (2, 1): 0.4}

    def first_step(lookahead):
        strategy = Beam(n=8, m=8, until=TOKEN, lookahead=lookahead)
        return search(strategy, model=model, reward=lambda tokens: worth.get(tuple(tokens[:2]), 0.5)).text[0]

    assert [first_step(lookahead) for lookahead in (0, 1, 2, 5)] == ["a", "b", "b", "b"]


def test_looking_ahead_is_greedy_and_every_rollout_is_thrown_away():
    model = ToyModel.random(0)
    ids = {text: token for token, text in enumerate(model.texts)}
    for seed in range(10):
        result = search("beam:n=4,m=2,until=1,lookahead=1", seed=seed, model=model)
        tree = result.trace.tree()
        dropped = {number for event in result.trace.events if isinstance(event, Dropped) for number in event.nodes}
        # The first child of an open path is its rollout: all open ones are looked at before any of them goes on.
        rollouts = [tree[node.children[0]] for node in tree[1:] if node.children]
        assert rollouts
        for node in rollouts:
            prefix = tuple(ids[part] for part in text_of(tree, tree[node.parent]))
            assert ids[node.text] == int(model.conditional(prefix, 0).argmax())
            assert node.id in dropped


def test_looking_ahead_is_charged_and_discarded():
    plain, ahead = (search(f"beam:n=6,m=3,until=1,lookahead={k}", model=endless()).ledger for k in (0, 2))
    assert plain.generated == 6 * 5
    # Six open paths on each of four levels look two tokens ahead, where two are left (the last one is the end).
    assert ahead.generated == plain.generated + 6 * (2 + 2 + 2 + 1)
    assert ahead.discarded >= plain.discarded + 6 * (2 + 2 + 2 + 1) - 6


def test_lookahead_search_is_beam_search_with_another_ranking():
    alike = [search(spec).best.key for spec in ("lookahead:n=6,m=3,until=1", "beam:n=6,m=3,until=1,lookahead=1")]
    assert alike[0] == alike[1]
    assert registry.technique("strategy", "lookahead").factory is Lookahead


@pytest.mark.parametrize("spec", ["beam:n=1,m=1,until=1,lookahead=2", "lookahead:n=1,m=1"])
def test_one_path_follows_the_models_law_whatever_is_looked_at(spec):
    assert_law(run_many(parse_strategy(spec), RUNS, reward=lambda tokens: 0.1 + 0.2 * len(tokens)), WARM)


def test_a_constant_scorer_takes_the_first_path_that_ends():
    # With two draws a level and one kept, an answer ends where either draw ends, and else goes on from the first.
    law, open_prefixes = {}, {(): 1.0}
    while open_prefixes:
        grown = {}
        for prefix, mass in open_prefixes.items():
            chances = SMALL.conditional(prefix, 0.8)
            goes_on = 1 - chances[0]
            law[(*prefix, 0)] = mass * (1 - goes_on**2)
            grown |= {(*prefix, t): mass * goes_on * chances[t] for t in (1, 2) if goes_on * chances[t] > 0}
        open_prefixes = grown
    results = run_many(Beam(n=2, m=2, until=TOKEN), RUNS)
    assert chi_square(Counter(result.best.tokens for result in results), law, RUNS) > 1e-3


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_perfect_scorer_succeeds_when_some_draw_of_every_level_goes_on_rightly(n):
    right = max(WARM, key=WARM.get)
    results = run_many(Beam(n=n, m=n, until=TOKEN), RUNS, reward=right_so_far(right))
    chance = np.prod([1 - (1 - p) ** n for p in conditionals(SMALL, right)])
    solved = sum(result.best.tokens == right for result in results)
    assert stats.binomtest(solved, RUNS, float(chance)).pvalue > 1e-3


def test_the_best_open_paths_are_kept():
    for seed in range(10):
        tree = search("beam:n=6,m=3,until=1", seed=seed).trace.tree()
        first = [node for node in tree[1:] if node.parent == 0 and node.scores and node.status in ("open", "dropped")]
        kept = [score(node) for node in first if node.children]
        assert all(min(kept) >= score(node) for node in first if not node.children)


def test_a_beam_stops_after_its_levels():
    result = search(Beam(n=4, m=2, until=TOKEN, iters=2), model=endless())
    assert max(levels(result)) == 2


@pytest.mark.parametrize(
    "spec",
    [
        "beam:n=0",
        "beam:m=0",
        "beam:n=6,m=4",
        "beam:iters=0",
        "beam:lookahead=-1",
        "beam:select=vote,scorer=logprob",
    ],
)
def test_settings_that_cannot_work_are_refused(spec):
    with pytest.raises(ConfigError):
        parse_strategy(spec)
