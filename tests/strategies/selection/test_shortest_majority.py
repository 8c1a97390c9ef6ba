"""Shortest majority: votes over the logarithm of the mean length."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from ramify.errors import ConfigError
from ramify.strategies import Sample, parse_strategy
from ramify.strategies.selection.shortest_majority import ShortestMajority, shortest_majority
from ramify.strategies.testing import check_strategy
from ramify.strategies.votes import tally
from tests.strategies.laws import run_many
from tests.strategies.selection.ballot_cases import ballot, permuted


def brute_force(ballots):
    """Every answer's count / log(mean length), the lengths of finished samples alone."""
    able = [b for b in ballots if b.finished] or ballots
    found = {}
    for answer in {b.answer for b in able} - {None}:
        lengths = [b.num_tokens for b in able if b.answer == answer]
        found[answer] = len(lengths) / math.log(max(2, np.mean(lengths)))
    return found


@settings(max_examples=60)
@given(permuted())
def test_the_winner_is_that_of_the_formula_in_any_order(case):
    ballots, order = case
    totals = brute_force(ballots)
    for some in (ballots, [ballots[i] for i in order]):
        winner, weights = shortest_majority(some)
        assert tally([b.answer for b, w in zip(some, weights, strict=True) if w], [w for w in weights if w]) == (
            pytest.approx(totals)
        )
        if totals:
            assert totals[some[winner].answer] == pytest.approx(max(totals.values()))


def test_of_equal_counts_the_shorter_answer_wins_and_its_shortest_sample_stands_for_it():
    ballots = [ballot("a", 50), ballot("b", 9), ballot("a", 40), ballot("b", 8)]
    assert shortest_majority(ballots)[0] == 3


def test_many_long_votes_still_beat_one_short_one():
    assert shortest_majority([ballot("b", 10), ballot("a", 60), ballot("a", 80), ballot("a", 90)])[0] == 1


def test_a_cut_answer_has_no_length_and_no_vote():
    ballots = [ballot("a", 2, finished=False), ballot("a", 3, finished=False), ballot("b", 30)]
    assert shortest_majority(ballots)[0] == 2


def test_without_a_readable_answer_the_shortest_is_chosen():
    assert shortest_majority([ballot(None, 5), ballot(None, 3)])[0] == 1
    assert shortest_majority([])[0] is None


def test_a_length_of_one_token_is_no_division_by_zero():
    winner, weights = shortest_majority([ballot("a", 1), ballot("b", 2)])
    assert winner == 0
    assert np.isfinite(weights).all()


def test_one_answer_is_plain_samplings_answer_draw_for_draw():
    sampled = [result.text for result in run_many(Sample(), 50)]
    assert [result.text for result in run_many(ShortestMajority(n=1), 50)] == sampled


def test_options_that_do_not_work_are_refused():
    with pytest.raises(ConfigError, match="n=0"):
        ShortestMajority(n=0)


@pytest.mark.parametrize("spec", ["shortest-majority:n=4,max_tokens=2"])
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))
