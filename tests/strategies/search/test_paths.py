"""What the searches share: sampling without replacement, families, ranks."""

import itertools
from collections import Counter

import numpy as np
import pytest

from ramify.backends.base import Node
from ramify.randomness import BranchKey
from ramify.strategies.search.paths import distinct, draw_without_replacement, families, ranked
from tests.strategies.laws import chi_square

ROOT = Node(BranchKey.root(0, "paths"))


def child(parent, index, tokens, ended=False):
    return Node(parent.key.child(index), parent, tokens, str(tokens), finish_reason="stop" if ended else None)


def one_after_the_other(weights, count):
    """The law of sets drawn without replacement, by enumeration."""
    law = Counter()
    for order in itertools.permutations(range(len(weights)), count):
        chance, left = 1.0, sum(weights)
        for i in order:
            chance, left = chance * weights[i] / left, left - weights[i]
        law[tuple(sorted(order))] += chance
    return law


@pytest.mark.parametrize("count", [1, 2, 3])
def test_drawing_without_replacement_is_drawing_one_after_the_other(count):
    weights = np.array([0.5, 0.1, 0.3, 0.1])
    uniforms = np.random.default_rng(1).random((3000, 4))
    counts = Counter(tuple(draw_without_replacement(np.log(weights), count, row)) for row in uniforms)
    assert chi_square(counts, one_after_the_other(weights, count), 3000) > 1e-3


def test_drawing_without_replacement_never_draws_more_than_there_is():
    uniforms = np.full(3, 0.5)
    assert draw_without_replacement(np.zeros(3), 9, uniforms) == [0, 1, 2]
    assert draw_without_replacement(np.array([-np.inf, 0.0, -1.0]), 2, uniforms) == [1, 2]
    assert draw_without_replacement(np.zeros(0), 2, np.zeros(0)) == []


def test_children_stand_by_their_parents_and_a_parent_without_any_is_closed():
    first, second, third = (child(ROOT, i, (i,)) for i in range(3))
    drawn = [child(third, 0, (2, 1)), child(first, 0, (0, 1)), child(third, 1, (2, 2))]
    below = families([first, second, third], drawn)
    assert below[0] == [drawn[1]]
    assert below[2] == [drawn[0], drawn[2]]
    (cut,) = below[1]
    assert (cut.key, cut.open, cut.finish_reason) == (second.key, False, "length")


def test_of_equal_paths_the_first_stays_but_an_open_one_is_not_a_finished_one():
    nodes = [child(ROOT, 0, (1,)), child(ROOT, 1, (1,)), child(ROOT, 2, (1,), ended=True), child(ROOT, 3, (2,))]
    assert distinct(nodes) == [nodes[0], nodes[2], nodes[3]]


def test_ranks_are_over_open_nodes_and_the_earlier_of_equals_is_kept():
    nodes = [child(ROOT, i, (i,), ended=i == 1) for i in range(5)]
    assert ranked(nodes, [0.5, 0.9, 0.7, 0.5, 0.5], 2) == [0, 2]
    assert ranked(nodes, [0.1, 0.9, 0.1, 0.1, 0.2], 9) == [0, 2, 3, 4]
