"""Self-truncation: merits from the table, who is pruned, when drawing ends."""

import asyncio

import pytest

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError
from ramify.scoring import Problem
from ramify.strategies import Budget, Sample, StepSplitter, solve
from ramify.strategies.kernel.trace import Dropped
from ramify.strategies.stopping.self_truncation import SelfTruncation
from ramify.strategies.testing import BY_TEXT, check_strategy, toy_backend
from tests.strategies.laws import SMALL, assert_law, run_many

EVERY_TOKEN = StepSplitter(max_tokens=1)
MODEL = ToyModel.random(7, depth=5)


def asking(**options):
    words = {"suffix": "a", "better": "b\n", "settled": "c\n"}
    return SelfTruncation(**{**words, "until": EVERY_TOKEN, "n": 6, "batch": 3, **options})


def merit(tokens):
    """The definition, from the table: the question stands in the place of the end of the sequence."""
    chances = MODEL.next_token((*(tokens[:-1] if tokens[-1] == 0 else tokens), 1))
    return 0.5 if chances[2] + chances[3] == 0 else chances[3] / (chances[2] + chances[3])


def test_one_answer_without_checks_is_plain_sampling():
    sampled = [result.text for result in run_many(Sample(), 50, model=MODEL)]
    assert [result.text for result in run_many(asking(n=1, checks=0), 50, model=MODEL)] == sampled


def test_one_answer_with_checks_follows_the_models_law():
    words = {"suffix": "a", "better": "b\n", "settled": "a"}
    strategy = SelfTruncation(n=1, until=EVERY_TOKEN, checks=2, **words)
    assert_law(run_many(strategy, 200), SMALL.law(temperature=0.8))


def test_an_answers_merit_is_the_models_own_probability_and_the_highest_is_taken():
    for result in run_many(asking(enough=1.0), 30, model=MODEL):
        merits = [candidate.score for candidate in result.candidates]
        assert merits == pytest.approx([merit(candidate.node.tokens) for candidate in result.candidates])
        assert max(merits) == next(c.score for c in result.candidates if c.node.key == result.best.key)


def test_words_that_the_model_cannot_say_mean_nothing():
    for result in run_many(asking(suffix="aaaa", enough=1.0, n=2), 5, model=MODEL):
        assert [candidate.score for candidate in result.candidates] == [0.5] * len(result.candidates)


@pytest.mark.parametrize(
    ("keep", "kept"), [(0.5, [1, 3]), (0.25, [1]), (0.01, [1]), (0.75, [1, 2, 3]), (1, [0, 1, 2, 3])]
)
def test_the_share_with_the_highest_merits_goes_on(keep, kept):
    assert SelfTruncation(keep=keep).best([0.1, 0.9, 0.2, 0.8]) == kept


def test_of_equal_merits_the_first_go_on():
    assert SelfTruncation(keep=0.5).best([0.3, 0.3, 0.3, 0.3]) == [0, 1]


def test_pruned_branches_are_those_of_lowest_merit_and_count_as_discarded():
    pruned = 0
    for result in run_many(asking(n=4, batch=4, keep=0.5, enough=1.0), 30, model=MODEL):
        tree = result.trace.tree()
        dropped = {node for event in result.trace.events if isinstance(event, Dropped) for node in event.nodes}
        pruned += len(dropped)
        assert (result.ledger.discarded > 0) == bool(dropped)
        first = {node.id: merit((_token(node.text),)) for node in tree if 0 < node.id <= 4 and node.status != "stop"}
        gone = [first[node] for node in dropped]
        stayed = [chance for node, chance in first.items() if node not in dropped]
        assert not gone or max(gone) <= min(stayed)
        assert not gone or len(stayed) == (len(first) + 1) // 2
    assert pruned > 10


def _token(text):
    return MODEL.texts.index(text)


def test_drawing_ends_with_the_batch_whose_best_merit_is_enough():
    for result in run_many(asking(n=9, batch=3, enough=0.6, checks=0), 20, model=MODEL):
        merits = [candidate.score for candidate in result.candidates]
        before = merits[:-3]
        assert all(value < 0.6 for value in before)
        assert (max(merits) >= 0.6) == (result.stop_reason == "certain")
        assert (result.ledger.saved > 0) == (len(merits) < 9)


def test_an_answer_that_fills_the_context_has_a_merit_too():
    backend = ToyBackend(MODEL, max_model_len=5)
    result = asyncio.run(solve(asking(enough=1.0), Problem("p", "xy"), backend, equivalence=BY_TEXT))
    assert all(0 <= candidate.score <= 1 for candidate in result.candidates)
    assert any(candidate.node.finish_reason == "length" for candidate in result.candidates)


def test_what_it_asks_is_charged_to_probes():
    for result in run_many(asking(n=2, batch=2, checks=0, enough=1.0), 5, model=MODEL):
        assert result.ledger.probe == 2 * 2  # two answers, two words of one token


@pytest.mark.parametrize(
    "options",
    [{"n": 0}, {"batch": 0}, {"checks": -1}, {"keep": 0}, {"enough": 2}, {"suffix": " "}, {"better": " No"}],
)
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        SelfTruncation(**options)


@pytest.mark.parametrize("options", [{"checks": 2}, {"checks": 1, "n": 5, "batch": 4, "keep": 0.3, "enough": 0.5}])
def test_it_keeps_the_laws_of_all_strategies(options):
    check_strategy(asking(**options))


def test_a_run_cut_by_its_budget_still_gives_an_answer_it_has_drawn():
    for tokens in range(1, 30):
        result = asyncio.run(
            solve(asking(), Problem("p", "xy"), toy_backend(), budget=Budget(tokens=tokens), equivalence=BY_TEXT)
        )
        finished = [candidate for candidate in result.candidates if candidate.node.finish_reason == "stop"]
        assert not finished or result.best.finish_reason == "stop" or result.stop_reason == "budget"
