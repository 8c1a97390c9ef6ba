"""Best-of-n: the faults that implementations are known for, and scorers that read what came with the draw."""

import pytest

from ramify.scoring.confidence import SelfCertainty, self_certainty
from ramify.strategies import BestOfN, Budget, parse_strategy
from ramify.strategies.kernel.trace import Grown
from ramify.strategies.testing import check_strategy, rising_reward
from tests.strategies.laws import run_many


@pytest.mark.parametrize("select", ["max", "weighted", "soft"])
def test_exactly_n_answers_are_drawn_whatever_is_selected_by(select):
    for result in run_many(BestOfN(n=7, select=select), 10, reward=rising_reward):
        assert sum(isinstance(event, Grown) for event in result.trace.events) == 7
        assert len(result.candidates) == 7


def test_the_highest_score_wins_and_never_the_lowest():
    for result in run_many(BestOfN(n=6), 40, reward=rising_reward):
        finished = [c for c in result.candidates if c.node.finish_reason == "stop"] or list(result.candidates)
        best = next(c for c in result.candidates if c.node.key == result.best.key)
        assert best.score == max(c.score for c in finished)


def test_a_cut_pool_is_not_padded_with_copies():
    for result in run_many(BestOfN(n=8, select="weighted"), 20, reward=rising_reward, budget=Budget(tokens=30)):
        keys = [c.node.key for c in result.candidates]
        assert len(keys) == len(set(keys)) < 8


def test_the_aggregation_that_was_asked_for_is_used():
    results = {
        agg: run_many(parse_strategy(f"best-of-n:n=4,agg={agg}"), 30, reward=rising_reward) for agg in ("last", "prod")
    }
    scores = {agg: [[c.score for c in r.candidates] for r in found] for agg, found in results.items()}
    assert scores["last"] != scores["prod"]
    assert all(
        a >= b
        for one, other in zip(scores["last"], scores["prod"], strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_equal_samples_are_as_many_votes():
    for result in run_many(BestOfN(n=9, select="weighted"), 30):  # a constant score: the majority
        answers = [c.answer for c in result.candidates if c.answer is not None and c.node.finish_reason == "stop"]
        if answers:
            assert answers.count(result.answer) == max(map(answers.count, answers))


def test_a_scorer_that_reads_details_finds_them():
    for result in run_many(BestOfN(n=4, scorer=SelfCertainty()), 10):
        finished = [c.node for c in result.candidates if c.node.finish_reason == "stop"]
        assert self_certainty(result.best) == max(map(self_certainty, finished or [result.best]))


@pytest.mark.parametrize(
    "spec", ["best-of-n:n=4,scorer=deepconf,top=2", "best-of-n:n=4,scorer=inverse-perplexity,select=weighted"]
)
def test_the_laws_of_every_strategy_hold(spec):
    check_strategy(parse_strategy(spec))
