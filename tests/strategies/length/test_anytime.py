"""Anytime answers: the model's own law at the end, the latest probe at any cut."""

import asyncio

import pytest

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError
from ramify.scoring import KeyedBy, Problem
from ramify.strategies import Budget, describe, parse_strategy, solve
from ramify.strategies.kernel.trace import Probed, Reported
from ramify.strategies.length.anytime import Anytime
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import assert_law, run_many
from tests.strategies.length.test_budget_forcing import one, written

TEXTS = ("", "a", "b\n", "c\n")
WARM = Anytime().sampling.with_(temperature=1.0)
LAST_LINE = KeyedBy(lambda text, problem: text.rpartition("b\n")[2].strip() or None if "b\n" in text else None)


def anytime(**options):
    """In the toy model's words: a probe's suffix is "b\\n"."""
    return Anytime(**{"start_think": "", "end_think": "b\n", "answer_prefix": "", **options}, sampling=WARM)


def thinker(then):
    """Thinks "a" without end; `then` says what it answers behind a suffix."""
    return written(TEXTS, [1] * 40, then=then)


def run(method, model, **options):
    """One run in which the answer is what stands behind the last "b"."""
    backend = ToyBackend(model, max_model_len=64)
    return asyncio.run(solve(method, Problem("p", "xy"), backend, equivalence=LAST_LINE, **options))


def test_the_models_own_answer_follows_its_own_law():
    model = ToyModel.random(5)
    assert_law(run_many(anytime(stride=2), 400, model=model), model.law())


def test_every_stride_is_probed_and_charged_and_the_last_answer_stands_at_the_limit():
    then = {(1, 1, 2): 3, (1, 1, 2, 3): 0, (1, 1, 1, 1, 2): 1, (1, 1, 1, 1, 2, 1): 0}
    result = run(anytime(stride=2, max_think=4), thinker(then))
    assert [event.text for event in result.trace.events if isinstance(event, Probed)] == ["c\n", "a"]
    assert (result.text, result.answer) == ("aaaab\na", "a")
    assert (result.ledger.generated, result.ledger.probe) == (4, 4)
    assert result.stop_reason == "finished"
    reports = [event.answer for event in result.trace.events if isinstance(event, Reported)]
    assert reports[-3:] == ["c", "a", "a"]


def test_an_answer_that_cannot_be_read_leaves_the_one_before_standing():
    then = {(1, 1, 2): 3, (1, 1, 2, 3): 0}
    result = run(anytime(stride=2, max_think=6), thinker(then))
    assert (result.text, result.answer) == ("aab\nc\n", "c")


@pytest.mark.parametrize(("tokens", "answer"), [(2, None), (4, "c"), (6, "c"), (8, "a"), (9, "a")])
def test_at_any_cut_of_the_budget_the_latest_answer_is_there(tokens, answer):
    then = {(1, 1, 2): 3, (1, 1, 2, 3): 0, (1, 1, 1, 1, 2): 1, (1, 1, 1, 1, 2, 1): 0}
    result = run(anytime(stride=2, answer_tokens=2), thinker(then), budget=Budget(tokens=tokens))
    assert result.answer == answer
    assert result.stop_reason == "budget"
    assert result.ledger.total_tokens <= tokens


def test_of_a_probe_that_was_cut_only_whole_lines_are_read():
    then = {(1, 1, 2): 3, (1, 1, 2, 3): 1, (1, 1, 2, 3, 1): 1}
    result = run(anytime(stride=2, max_think=2, answer_tokens=3), thinker(then))
    assert result.answer == "c"


def test_once_thinking_has_ended_there_are_no_more_probes():
    model = written(TEXTS, [1, 1, 1, 2, 3, 1, 3, 1, 3])
    result = run(anytime(stride=2, answer_tokens=2), model)
    assert result.text == "aaab\n" + "c\na" * 2 + "c\n"
    assert sum(isinstance(event, Probed) for event in result.trace.events) == 1


def test_an_end_marker_across_two_strides_is_seen():
    model = written(("", "a", "#", "x"), [1, 2, 2, 3, 3, 3])
    method = Anytime(start_think="", end_think="##", answer_prefix="", stride=2)
    result = one(method, model)
    assert (result.text, result.stop_reason) == ("a##xxx", "finished")
    assert sum(isinstance(event, Probed) for event in result.trace.events) == 1


def test_a_model_that_answers_within_the_first_stride_is_never_probed():
    result = one(anytime(stride=50), written(TEXTS, [1, 3]))
    assert (result.text, result.ledger.probe) == ("ac\n", 0)


@pytest.mark.parametrize(
    "method", [anytime(stride=1, max_think=3), anytime(stride=2, answer_tokens=2)], ids=["each token", "strides of two"]
)
def test_it_keeps_the_laws_of_every_strategy(method):
    check_strategy(method)


def test_specs_and_bad_options():
    method = parse_strategy("anytime:stride=8,start_think=,end_think=\\n####,answer_prefix=\\x20")
    assert parse_strategy(describe(method)) == method
    for option in ("stride", "max_think", "answer_tokens"):
        with pytest.raises(ConfigError, match=option):
            Anytime(**{option: 0})
