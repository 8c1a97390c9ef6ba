"""Minimum Bayes risk: the answer most like the others, under every similarity."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.errors import ConfigError
from ramify.strategies import Sample, parse_strategy
from ramify.strategies.selection.mbr import MinimumBayesRisk, mbr, similarities
from ramify.strategies.selection.similarity import SIMILARITIES, chrf, edit, levenshtein, same_key, token_f1
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import run_many
from tests.strategies.selection.ballot_cases import ballot, permuted

TEXTS = st.text(alphabet="ab c\n", max_size=12)
NAMES = sorted(SIMILARITIES)


def text(words):
    return ballot(words, text=words)


@settings(max_examples=60)
@given(TEXTS, TEXTS)
def test_every_similarity_lies_between_0_and_1_and_is_1_for_the_same_text(first, second):
    for name in NAMES:
        value = SIMILARITIES[name](text(first), text(second))
        assert 0 <= value <= 1
        assert SIMILARITIES[name](text(first), text(first)) == pytest.approx(1)
    assert edit(text(first), text(second)) == edit(text(second), text(first))
    assert token_f1(text(first), text(second)) == token_f1(text(second), text(first))


def slow_levenshtein(first, second):
    rows = [[i + j if i * j == 0 else 0 for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            cost = first[i - 1] != second[j - 1]
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + cost)
    return rows[-1][-1]


@settings(max_examples=60)
@given(TEXTS, TEXTS)
def test_the_edit_distance_is_that_of_the_textbook_table(first, second):
    assert levenshtein(first, second) == slow_levenshtein(first, second)


def test_similarities_by_hand():
    assert token_f1(text("the cat sat"), text("the cat")) == pytest.approx(2 * 2 / 5)
    assert edit(text("kitten"), text("sitting")) == pytest.approx(1 - 3 / 7)
    assert chrf(text("abc"), text("xyz")) == 0
    # orders 1 to 3 of "ab" and "abc": precision (1, 1, 0), recall (2/3, 1/2, 0)
    precision, recall = 2 / 3, (2 / 3 + 1 / 2) / 3
    assert chrf(text("ab"), text("abc")) == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert chrf(text("a b"), text("ab")) == 1
    assert same_key(ballot(None), ballot(None)) == 0


@settings(max_examples=60)
@given(permuted(), st.sampled_from(NAMES))
def test_the_winner_has_the_largest_sum_by_brute_force_in_any_order(case, name):
    ballots, order = case
    measure = SIMILARITIES[name]
    able = [b for b in ballots if b.finished] or ballots

    def gain(one):
        return sum(measure(one, other) for other in able if other is not one)

    for some in (ballots, [ballots[i] for i in order]):
        winner, _ = mbr(some, measure)
        assert some[winner] in able
        assert gain(some[winner]) == pytest.approx(max(map(gain, able)), abs=1e-9)


@settings(max_examples=60)
@given(permuted())
def test_with_equal_keys_for_a_similarity_it_is_the_majority_vote(case):
    ballots, _ = case
    able = [b for b in ballots if b.finished] or ballots
    counts = Counter(b.answer for b in able if b.answer is not None)
    winner, _ = mbr(ballots, same_key)
    if counts and max(counts.values()) > 1:
        assert counts[ballots[winner].answer] == max(counts.values())


def test_the_text_in_the_middle_wins_where_no_two_are_equal():
    ballots = [text("the sum is 12 apples"), text("so the sum is 12"), text("the sum is 12"), text("9 pears remain")]
    assert mbr(ballots, token_f1)[0] == 2
    assert mbr(ballots, chrf)[0] in (0, 1, 2)


def test_ties_go_to_the_first_drawn_and_cut_answers_do_not_stand():
    assert mbr([text("a"), text("b")], edit)[0] == 0
    assert mbr([ballot("a", finished=False, text="x"), text("x"), text("y")], edit)[0] == 1
    assert mbr([], edit)[0] is None


def test_an_answer_does_not_speak_for_itself():
    matrix = similarities([text("a"), text("a"), text("b")], edit)
    np.testing.assert_array_equal(matrix, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_a_similarity_of_ones_own_decides():
    longest = MinimumBayesRisk(n=5, similarity=lambda answer, reference: len(answer.text) / 100)
    for result in run_many(longest, 30):
        finished = [c.node for c in result.candidates if c.node.finish_reason == "stop"]
        assert len(result.text) == max(len(node.text) for node in finished)


@pytest.mark.parametrize("spec", ["mbr:n=1", "mbr:n=1,similarity=edit"])
def test_one_answer_is_plain_samplings_answer_draw_for_draw(spec):
    sampled = [result.text for result in run_many(Sample(), 50)]
    assert [result.text for result in run_many(parse_strategy(spec), 50)] == sampled


def test_options_that_do_not_work_are_refused():
    with pytest.raises(ConfigError, match="n=0"):
        MinimumBayesRisk(n=0)
    with pytest.raises(ConfigError, match="similarity='bleu'"):
        MinimumBayesRisk(similarity="bleu")
    with pytest.raises(ConfigError, match="similarity='bleu'"):
        parse_strategy("mbr:similarity=bleu")


@pytest.mark.parametrize("spec", ["mbr:n=4,similarity=key"])
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))
