"""Votes: what wins, and that the order of candidates matters for ties alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.backends.base import Node
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.strategies.votes import best_of, check_transform, finished, most_of, tally, vote, vote_weights

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


@settings(max_examples=60)
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


SCORES = st.lists(st.floats(0, 100, width=32), min_size=1, max_size=8)


@settings(max_examples=60)
@given(SCORES)
def test_shares_sum_to_one_and_do_not_depend_on_the_unit(scores):
    weights = vote_weights(scores, "share")
    if sum(scores) > 0:
        assert weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(vote_weights([score * 1024 for score in scores], "share"), weights)


@settings(max_examples=60)
@given(SCORES, st.floats(0.1, 3))
def test_ranks_do_not_depend_on_any_increasing_change_of_the_scores(scores, power):
    changed = [score**3 + 5 for score in map(float, scores)]
    if len(set(changed)) == len(set(scores)):  # rounding may make equals of what was not
        assert list(vote_weights(changed, "rank", power=power)) == list(vote_weights(scores, "rank", power=power))


@settings(max_examples=60)
@given(SCORES)
def test_a_softmax_depends_neither_on_the_unit_nor_on_the_origin(scores):
    weights = vote_weights(scores, "softmax", tau=0.7)
    moved = vote_weights([score * 8 - 3 for score in scores], "softmax", tau=0.7)
    np.testing.assert_allclose(moved, weights, rtol=1e-4)


def test_equal_scores_weigh_the_same_under_every_transform():
    for transform in ("none", "share", "rank", "softmax"):
        assert len(set(vote_weights([0.3, 0.3, 0.3], transform))) == 1
    assert (
        len(set(vote_weights([0.1 + 0.2, 0.3, 0.3], "softmax"))) == 1
    )  # rounding is no difference in standard deviations


def test_ranks_are_borda_counts_with_mean_ranks_for_equals():
    np.testing.assert_allclose(vote_weights([0.1, 0.9, 0.5, 0.5], "rank"), [1 / 4, 1, 2.5 / 4, 2.5 / 4])
    np.testing.assert_allclose(vote_weights([0.1, 0.9], "rank", power=2), [1 / 4, 1])
    np.testing.assert_allclose(vote_weights([0.1, 0.9], "rank", power=0), [1, 1])


def test_the_larger_score_never_weighs_less():
    for transform in ("none", "share", "rank", "softmax"):
        weights = vote_weights([0.1, 0.2, 0.7, 0.7], transform)
        assert list(weights) == sorted(weights)


@pytest.mark.parametrize("transform", ["none", "share"])
def test_a_negative_score_is_no_weight(transform):
    with pytest.raises(ConfigError, match="weigh"):
        vote_weights([-1.0, 2.0], transform)


@pytest.mark.parametrize("transform", ["none", "share", "rank", "softmax"])
def test_a_score_that_is_no_number_weighs_nothing_but_fails(transform):
    with pytest.raises(ConfigError, match="finite"):
        vote_weights([float("nan"), 2.0], transform)


def test_a_scale_without_an_end_needs_a_transform():
    check_transform("none", (0.0, 1.0), "X")
    for transform, scale in [("none", (0.0, math.inf)), ("none", (-1.0, 1.0)), ("share", (-math.inf, 0.0))]:
        with pytest.raises(ConfigError, match=f"transform={transform}"):
            check_transform(transform, scale, "X")
    for transform in ("rank", "softmax"):
        check_transform(transform, (-math.inf, math.inf), "X")


def test_the_share_kept_is_the_highest_and_equals_stay_together():
    scores = [0.1, 0.9, 0.5, 0.5]
    assert most_of(scores, [0, 1, 2, 3], 0.25) == [1]
    assert most_of(scores, [0, 1, 2, 3], 0.5) == [1, 2, 3]
    assert most_of(scores, [0, 2], 0.01) == [2]
    assert most_of(scores, [], 1.0) == []
