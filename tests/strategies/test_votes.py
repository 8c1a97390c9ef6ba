"""Votes: what wins, and that the order of candidates matters for ties alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.backends.base import Node
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.strategies.votes import best_of, finished, tally, vote

ANSWERS = st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=8)
WEIGHTS = st.floats(0, 1, allow_nan=False)


def test_most_votes_win():
    assert vote(["a", "b", "b", "c"]) == 1


def test_none_never_votes_even_in_the_majority():
    assert vote([None, None, None, "a"]) == 3
    assert tally([None, "a"]) == {"a": 1.0}


def test_without_any_answer_there_is_no_winner():
    assert vote([None, None]) is None
    assert vote([]) is None


def test_ties_go_to_the_larger_sum_of_merits_then_to_the_first_seen():
    assert vote(["a", "b"], merits=[-2.0, -1.0]) == 1
    assert vote(["a", "b"], merits=[-1.0, -1.0]) == 0
    assert vote(["b", "a", "a", "b"]) == 0


def test_the_winner_is_represented_by_its_candidate_of_most_merit():
    assert vote(["a", "b", "a"], merits=[0.1, 0.9, 0.5]) == 2


def test_weights_decide_before_counts():
    assert vote(["a", "a", "b"], weights=[0.2, 0.2, 0.9]) == 2


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_summed_is_refused(weight):
    with pytest.raises(ConfigError, match="weigh"):
        vote(["a"], weights=[weight])


@given(st.data(), ANSWERS)
def test_permuting_candidates_never_changes_a_vote_except_ties(data, answers):
    weights = data.draw(st.lists(WEIGHTS, min_size=len(answers), max_size=len(answers)))
    order = data.draw(st.permutations(range(len(answers))))
    totals = tally(answers, weights)
    winner = vote(answers, weights)
    permuted = vote([answers[i] for i in order], [weights[i] for i in order])
    if winner is None:
        assert permuted is None
        return
    other = answers[order[permuted]]
    assert totals == tally([answers[i] for i in order], [weights[i] for i in order])
    assert totals[other] == totals[answers[winner]]
    if list(totals.values()).count(totals[other]) == 1:
        assert other == answers[winner]


def node(reason):
    return Node(BranchKey(0, 0), finish_reason=reason)


def test_a_cut_answer_never_stands_against_a_finished_one():
    assert finished([node("length"), node("stop"), node(None)]) == [1]
    assert finished([node("length"), node(None)]) == [0, 1]


def test_the_first_of_equal_scores_is_the_best():
    assert best_of([0.5, 0.7, 0.7], among=[0, 1, 2]) == 1
    assert best_of([0.5], among=[]) is None
