"""Scorers: what they give, what they cost, and that a failure is never a score."""

import asyncio
import math

import numpy as np
import pytest

from ramify import registry
from ramify.backends.base import Capability, Node
from ramify.backends.scripted import ScriptedBackend
from ramify.errors import ConfigError, ScorerError
from ramify.randomness import BranchKey
from ramify.scoring import MeanLogprob, OutcomeReward, Problem, ProcessReward, Reading, RuleCheck, ScoreBatch, Scorer
from ramify.scoring.scorers import checked_scores

PROBLEM = Problem("p", "?", answer="12")


def node(text="", logprobs=None, tokens=()):
    return Node(BranchKey(0, 0), tokens=tokens, text=text, token_logprobs=logprobs)


def score(scorer, nodes):
    return asyncio.run(checked_scores(scorer, nodes, PROBLEM, backend=None)).values


@pytest.mark.parametrize("entry", registry.techniques("scorer"), ids=lambda entry: entry.name)
def test_every_scorer_keeps_the_contract(entry):
    scorer = entry.factory()
    assert isinstance(scorer, Scorer)
    assert scorer == entry.factory()
    assert hash(scorer) == hash(entry.factory())
    low, high = scorer.range
    assert low < high
    assert scorer.needs <= set(Capability)
    assert {str(need) for need in scorer.needs} <= {*entry.needs, "reward"}
    shorter, longer = Reading(10, 9, 5, False), Reading(10, 10, 6, True)
    assert 0 <= scorer.cost(shorter) <= scorer.cost(longer)
    assert scorer.cost(longer) <= scorer.cost(Reading(11, 30, 30, True))


def test_marks_are_reserved_for_every_token_and_for_the_last_step():
    reading = Reading(10, 20, 7, True)
    assert ProcessReward().cost(reading) == 17
    assert ProcessReward(marks=1).cost(reading) == 17 + 8
    with pytest.raises(ConfigError, match="marks=2"):
        ProcessReward(marks=2)


def test_an_outcome_reward_is_one_score_of_an_outcome_model():
    backend = ScriptedBackend(lambda call: "", rewards={"orm": lambda text: len(text) / 10})
    answers = [node("x" * length) for length in (2, 5)]

    def rewards(scorer):
        return list(asyncio.run(checked_scores(scorer, answers, PROBLEM, backend)).values)

    assert rewards(OutcomeReward("orm")) == [0.2, 0.5]
    assert rewards(OutcomeReward("orm", probability=True)) == [0.2, 0.5]  # in [0, 1] already
    with pytest.raises(ScorerError, match="model=NAME"):
        rewards(OutcomeReward())
    with pytest.raises(ScorerError, match="no reward model"):
        rewards(OutcomeReward("other"))


def test_a_rule_gives_one_or_zero():
    right = RuleCheck(lambda text, problem: text.endswith(problem.answer))
    assert list(score(right, [node("#### 12"), node("#### 13")])) == [1.0, 0.0]
    assert list(score(RuleCheck(), [node("#### 12"), node("12")])) == [1.0, 0.0]


def test_mean_log_probability_is_that_of_the_answers_own_tokens():
    nodes = [node(logprobs=(-1.0, -3.0), tokens=(1, 2)), node(logprobs=(-0.5,), tokens=(1,)), node()]
    assert list(score(MeanLogprob(), nodes)) == [-2.0, -0.5, 0.0]
    assert MeanLogprob().needs == {Capability.LOGPROBS}


def test_missing_log_probabilities_are_an_error():
    with pytest.raises(ScorerError, match="logprobs=0"):
        score(MeanLogprob(), [node(tokens=(1, 2))])


def test_an_impossible_token_is_no_score():
    with pytest.raises(ScorerError, match="outside its range"):
        score(MeanLogprob(), [node(logprobs=(-math.inf,), tokens=(1,))])


def test_an_exception_of_a_scorer_names_the_scorer_and_the_problem():
    def broken(text, problem):
        raise KeyError("target")

    with pytest.raises(ScorerError, match="RuleCheck failed on problem 'p': KeyError"):
        score(RuleCheck(broken), [node("x")])


def test_scores_of_the_wrong_number_are_refused():
    class Short(RuleCheck):
        async def score(self, nodes, problem, backend):
            return ScoreBatch(np.zeros(len(nodes) - 1))

    with pytest.raises(ScorerError, match="one each"):
        score(Short(), [node("a"), node("b")])
