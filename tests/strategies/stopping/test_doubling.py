"""Doubling: whole batches, and a stop exactly where the share is reached at the end of one."""

from collections import Counter

import pytest

from ramify.errors import ConfigError
from ramify.scoring import KeyedBy
from ramify.strategies import Sample, SelfConsistency, parse_strategy
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import run_many

RUNS = 40


def stopping_point(answers, tau, first):
    """After 2, 4, 8, ... of them, counted independently."""
    n = first
    while n < len(answers):
        top = max(Counter(a for a in answers[:n] if a is not None).values(), default=0)
        if top >= tau * n:
            return n
        n *= 2
    return len(answers)


@pytest.mark.parametrize(("n", "tau", "first"), [(16, 0.75, 2), (13, 0.6, 2), (12, 0.5, 3)])
def test_it_stops_at_the_end_of_the_first_batch_after_which_enough_agree(n, tau, first):
    full = run_many(SelfConsistency(n=n), RUNS)
    early = run_many(parse_strategy(f"doubling:n={n},tau={tau},first={first}"), RUNS)
    lengths = set()
    for whole, part in zip(full, early, strict=True):
        expected = stopping_point([c.answer for c in whole.candidates], tau, first)
        assert [c.node.key for c in part.candidates] == [c.node.key for c in whole.candidates[:expected]]
        assert part.ledger.discarded == 0
        lengths.add(expected)
    assert len(lengths) >= 3


def test_two_that_agree_are_enough_and_two_that_do_not_are_not():
    for result in run_many(parse_strategy("doubling:n=8"), RUNS):
        answers = [candidate.answer for candidate in result.candidates]
        agree = answers[0] is not None and answers[0] == answers[1]
        assert (len(answers) == 2) == agree
        assert agree <= (result.stop_reason == "certain")


def test_what_was_not_drawn_shows_as_saved():
    for result in run_many(parse_strategy("doubling:n=8"), RUNS):
        assert (result.ledger.saved > 0) == (len(result.candidates) < 8)


def test_two_without_an_answer_do_not_agree():
    nothing = KeyedBy(lambda text, problem: None)
    for result in run_many(parse_strategy("doubling:n=5"), 10, equivalence=nothing):
        assert len(result.candidates) == 5
        assert result.answer is None


def test_one_answer_is_plain_samplings():
    sampled = [result.text for result in run_many(Sample(), 40)]
    assert [result.text for result in run_many(parse_strategy("doubling:n=1"), 40)] == sampled


@pytest.mark.parametrize("spec", ["doubling:n=6,tau=0.5,first=3"])
def test_it_keeps_the_laws(spec):
    check_strategy(parse_strategy(spec))


@pytest.mark.parametrize("options", ["n=0", "first=1", "tau=0", "tau=1.1"])
def test_options_that_do_not_work_are_refused(options):
    with pytest.raises(ConfigError, match=options):
        parse_strategy(f"doubling:{options}")
