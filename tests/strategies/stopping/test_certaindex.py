"""Certaindex: when it stops, when it must not, and what probes may change (nothing)."""

import math

import pytest

from ramify.errors import ConfigError
from ramify.strategies import Budget, StepSplitter, parse_strategy
from ramify.strategies.stopping.certaindex import Certaindex, certainty
from ramify.strategies.stopping.forced_answers import fitting
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many
from tests.strategies.stopping.scripted import ASK, END, HMM, WAIT, WAITER, X, Y, run_script

EVERY_TOKEN = StepSplitter(max_tokens=1)


def single(**options):
    return Certaindex(suffix=ASK, until=EVERY_TOKEN, **options)


@pytest.mark.parametrize(("window", "text"), [(2, "ttt?y"), (3, "tttt?y"), (4, "ttttt?y")])
def test_a_chain_stops_when_its_last_window_of_probes_agrees_and_not_before(window, text):
    result = run_script(single(window=window), [X, Y, Y, Y, Y, Y, Y])
    assert (result.text, result.answer, result.stop_reason) == (text, "y", "certain")
    assert result.ledger.generated == len(text) - 2
    assert result.ledger.discarded == 0


def test_probes_are_paid_for_and_are_no_candidates():
    result = run_script(single(), [X, Y, Y])
    assert result.ledger.probe == 3 * 2  # the answer and the end of the sequence
    assert [candidate.node.text for candidate in result.candidates] == ["ttt?y"]


@pytest.mark.parametrize("answers", [[X, Y] * 4, [END] * 8, [END, Y] * 4])
def test_disagreeing_or_empty_probes_never_stop_a_chain(answers):
    result = run_script(single(), answers, last=Y)
    assert (result.text, result.stop_reason) == ("t" * 8 + "y", "finished")


@pytest.mark.parametrize("answer", [WAIT, HMM])
def test_a_word_of_doubt_means_no_certainty(answer):
    assert run_script(single(), [answer] * 5).stop_reason == "finished"
    assert run_script(single(doubt=""), [answer] * 5).stop_reason == "certain"


def test_a_word_that_only_contains_a_word_of_doubt_is_none():
    assert run_script(single(), [WAITER] * 5).text == "tt?waiter y"


def test_doubt_in_the_middle_of_a_window_starts_it_anew():
    assert run_script(single(), [Y, WAIT, Y, Y, Y]).text == "tttt?y"


def test_certainty_is_one_less_the_normalised_entropy():
    assert certainty("aaaa") == 1
    assert math.isclose(certainty("aabb"), 0.5)
    assert math.isclose(certainty("abcd"), 0, abs_tol=1e-12)
    assert math.isclose(certainty([None, None]), 0, abs_tol=1e-12)
    assert certainty("a") == 0


def test_certainty_does_not_depend_on_the_order_of_the_answers():
    answers = ["a", None, "b", "a", None, "a"]
    assert math.isclose(certainty(answers), certainty(answers[::-1]))


def test_chains_that_agree_end_the_problem_at_their_first_probe():
    result = run_script(single(n=3), [Y] * 6)
    assert (result.answer, result.stop_reason) == ("y", "certain")
    assert [candidate.node.text for candidate in result.candidates] == ["t?y"] * 3
    assert result.ledger.generated == 3


def test_chains_without_an_answer_do_not_agree():
    assert run_script(single(n=3), [END] * 4).stop_reason == "finished"


def test_a_problem_that_ends_drops_the_chains_that_say_something_else():
    strategy = Certaindex(n=6, suffix="a", until=EVERY_TOKEN, certainty=0.3, window=8)
    fewer = 0
    for result in run_many(strategy, 40):
        assert all(candidate.node.finish_reason == "stop" for candidate in result.candidates)
        if len(result.candidates) < 6:
            fewer += 1
            assert result.stop_reason == "certain"
            assert result.ledger.discarded > 0
    assert fewer


def test_probing_leaves_the_law_of_a_chain_that_is_never_certain_unchanged():
    strategy = Certaindex(n=1, suffix="a", until=EVERY_TOKEN, window=8)
    assert_law(run_many(strategy, 200), SMALL.law(temperature=0.8))


def test_a_budget_counts_probes():
    result = run_script(single(), [X, Y] * 4, budget=Budget(tokens=10))
    assert result.stop_reason == "budget"
    assert result.ledger.total_tokens <= 10


def test_a_chain_that_fills_the_context_is_asked_as_long_as_there_is_room_and_then_left_alone():
    result = run_script(single(), [X, Y] * 20, context=12)
    assert (result.best.finish_reason, result.best.num_tokens) == ("length", 11)
    assert result.ledger.probe > 0


def test_line_breaks_that_are_there_are_not_asked_for_again():
    assert fitting("\n#### ", "a line\n") == "#### "
    assert fitting("\n#### ", "half a line") == "\n#### "
    assert fitting("\n\nSo", "a line\n") == "\nSo"


@pytest.mark.parametrize("options", [{"n": 0}, {"window": 1}, {"certainty": 0}, {"suffix": "\n"}, {"probe_tokens": 0}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        Certaindex(**options)


@pytest.mark.parametrize("spec", ["certaindex:until=1,suffix=a", "certaindex:n=3,until=2,suffix=a,certainty=0.5"])
def test_it_keeps_the_laws_of_all_strategies(spec):
    check_strategy(parse_strategy(spec))
