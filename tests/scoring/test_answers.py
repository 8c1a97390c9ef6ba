"""Reading answers out of text, and telling when two are the same."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.scoring import Equivalence, KeyedBy, MarkedAnswer, NumberAnswer, Problem
from ramify.scoring.equivalence import normalise, parse_number
from ramify.scoring.extraction import last_number, marked_answer

PROBLEM = Problem("p", "?")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5 + 7 = 12\n#### 12", "12"),
        ("#### 3\nno, wait\n#### 4\n", "4"),
        ("thus \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{3} and then \\boxed{unfinished", "3"),
        ("so\nAnswer: 42.", "42"),
        ("The final answer is **7**", "7"),
        ("**Answer:** Paris", "Paris"),
        ("#### 9\nAnswer: 8", "9"),
        ("no mark 12", None),
        ("####", None),
        ("\\boxed{}", None),
        ("", None),
    ],
)
def test_the_marked_answer_is_found(text, answer):
    assert marked_answer(text) == answer


def test_the_last_number_is_found_as_it_is_written():
    assert last_number("first 3, then -1,234.5 apples") == "-1,234.5"
    assert last_number("it costs $40, at most") == "$40"
    assert last_number("none") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("-12.50", Fraction(-25, 2)),
        ("+3", 3),
        ("1,234,567", 1234567),
        ("$1,000.00", 1000),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("40%", Fraction(2, 5)),
        ("2.5e3", 2500),
        (".5", Fraction(1, 2)),
        ("7.", 7),
        ("\u22125", -5),
        ("1,23", None),
        ("3/0", None),
        ("1/2/3", None),
        ("twelve", None),
        ("12 apples", None),
        ("\u0661\u0662", None),
        ("1e999", None),
        ("9" * 61, None),
        ("", None),
    ],
)
def test_numbers_are_read_exactly_or_not_at_all(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "pair",
    [("#### 1,200", "#### 1200.0"), ("#### 1/2", "\\boxed{0.5}"), ("Answer: Paris.", "#### paris"), ("x 3", "3")],
)
def test_answers_that_mean_the_same_have_equal_keys(pair):
    keys = [MarkedAnswer().key(text, PROBLEM) for text in pair]
    assert keys[0] == keys[1]
    assert keys[0] is not None


def test_different_answers_have_different_keys_and_none_is_no_answer():
    key = MarkedAnswer().key
    assert key("#### 12", PROBLEM) != key("#### 13", PROBLEM)
    assert key("I do not know", PROBLEM) is None
    assert MarkedAnswer(fallback=False).key("it is 3", PROBLEM) is None
    assert NumberAnswer().key("#### about 12 apples", PROBLEM) == 12
    assert NumberAnswer().key("#### twelve", PROBLEM) is None


def test_a_tasks_own_reading_can_stand_in():
    mine = KeyedBy(lambda text, problem: text[:1] or None)
    assert isinstance(mine, Equivalence)
    assert mine.key("xyz", PROBLEM) == "x"


@given(st.fractions(max_denominator=10**6))
def test_every_fraction_reads_back(value):
    assert parse_number(f"{value.numerator}/{value.denominator}") == value


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators_make_no_difference(value):
    assert parse_number(f"{value:,}") == parse_number(str(value)) == value


@given(st.text(max_size=300))
def test_any_text_has_a_hashable_key_or_none_and_always_the_same(text):
    for equivalence in (MarkedAnswer(), NumberAnswer()):
        key = equivalence.key(text, PROBLEM)
        assert key is None or hash(key) == hash(equivalence.key(text, PROBLEM))


@given(st.text(max_size=80))
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert once is None or normalise(once) == once


@pytest.mark.parametrize(
    "text",
    ["#### " + "9" * 10**6, "\\boxed{" * 50_000, "answer is " * 50_000, "1," * 500_000, "1e9" * 10**5, "{" * 10**6],
)
def test_hostile_text_is_read_in_no_time(text):
    started = time.process_time()
    MarkedAnswer().key(text, PROBLEM)
    NumberAnswer().key(text, PROBLEM)
    assert time.process_time() - started < 2  # a hang would take minutes; the usual time is milliseconds
