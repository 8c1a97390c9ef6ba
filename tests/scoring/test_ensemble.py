"""Ensembles: each combination by its definition, one scale before they are combined, and no member that is missing."""

import asyncio
import math

import numpy as np
import pytest

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError, ScorerError
from ramify.randomness import BranchKey
from ramify.scoring import DeepConf, Ensemble, MeanLogprob, Member, Problem, ProcessReward, Reading, RuleCheck, Scorer
from ramify.scoring.calibration import CalibrationMap
from ramify.scoring.ensemble import ranks
from ramify.scoring.scorers import checked_scores

PROBLEM = Problem("p", "?")


def at_least(length):
    return RuleCheck(lambda text, problem: len(text) >= length)


def nodes(*lengths):
    """Answers of these lengths; the log-probability of each is minus its length."""
    return [
        Node(BranchKey(0, length), tokens=(1,), text="x" * length, token_logprobs=(-float(length),))
        for length in lengths
    ]


def values(ensemble, *lengths):
    return list(asyncio.run(checked_scores(ensemble, nodes(*lengths), PROBLEM, backend=None)).values)


LONG = CalibrationMap((-4.0, 0.0), (0.5, 1.0))


@pytest.mark.parametrize(
    ("combine", "weights", "expected"),
    [
        ("mean", (1, 1, 1), [(0 + 0 + 0.875) / 3, (1 + 0 + 0.75) / 3, (1 + 1 + 0.5) / 3]),
        ("mean", (2, 1, 1), [0.875 / 4, (2 + 0.75) / 4, (2 + 1 + 0.5) / 4]),
        ("min", (1, 1, 1), [0, 0, 0.5]),
        ("product", (1, 1, 1), [0, 0, 0.5]),
        ("product", (1, 1, 2), [0, 0, 0.25]),
        ("rank-mean", (1, 1, 1), [(0 + 0.25 + 1) / 3, (0.75 + 0.25 + 0.5) / 3, (0.75 + 1 + 0) / 3]),
        ("rank-mean", (1, 1, 6), [(0 + 0.25 + 6) / 8, (0.75 + 0.25 + 3) / 8, (0.75 + 1 + 0) / 8]),
    ],
)
def test_scores_are_combined_as_said(combine, weights, expected):
    scorers = (at_least(2), at_least(4), MeanLogprob())
    members = tuple(
        Member(scorer, weight, LONG if isinstance(scorer, MeanLogprob) else None)
        for scorer, weight in zip(scorers, weights, strict=True)
    )
    assert values(Ensemble(members, combine), 1, 2, 4) == pytest.approx(expected)


def test_a_rank_mean_needs_no_scale_and_does_not_change_with_it():
    plain = Ensemble((Member(MeanLogprob()), Member(at_least(3))), "rank-mean")
    scaled = Ensemble((Member(MeanLogprob(), map=LONG), Member(at_least(3))), "rank-mean")
    assert values(plain, 1, 3, 2) == values(scaled, 1, 3, 2)
    assert values(plain, 7) == [0.5]


def test_ranks_share_what_is_equal_and_do_not_depend_on_the_order():
    assert list(ranks(np.array([3.0, 1.0, 3.0, 0.0]))) == pytest.approx([2.5 / 3, 1 / 3, 2.5 / 3, 0])
    assert list(ranks(np.zeros(4))) == [0.5] * 4
    assert list(ranks(np.array([2.0]))) == [0.5]


def test_a_member_that_fails_fails_the_ensemble():
    def broken(text, problem):
        raise OSError("gone")

    with pytest.raises(ScorerError, match="OSError: gone"):
        values(Ensemble((Member(at_least(1)), Member(RuleCheck(broken)))), 1)
    impossible = Node(BranchKey(0, 1), tokens=(1,), token_logprobs=(-math.inf,))
    scorer = Ensemble((Member(MeanLogprob(), map=LONG),))
    with pytest.raises(ScorerError, match="outside its range"):
        asyncio.run(checked_scores(scorer, [impossible], PROBLEM, backend=None))


def test_it_needs_and_costs_what_its_members_do():
    made = Ensemble()
    assert isinstance(made, Scorer)
    assert hash(made) == hash(Ensemble())
    assert made.needs == {Capability.REWARD}
    reading = Reading(10, 20, 5, True)
    assert made.cost(reading) == ProcessReward().cost(reading)
    twice = Ensemble((Member(ProcessReward()), Member(ProcessReward("other")), Member(DeepConf(top=7))), "rank-mean")
    assert twice.cost(reading) == 2 * ProcessReward().cost(reading)
    assert twice.logprobs == 7
    assert twice.needs == {Capability.REWARD, Capability.LOGPROBS}


@pytest.mark.parametrize(
    ("members", "combine", "named"),
    [
        ((), "mean", "without members"),
        ((Member(MeanLogprob()),), "mean", "MeanLogprob.*CalibrationMap.fit"),
        ((Member(MeanLogprob()),), "product", "rank-mean"),
        ((Member(RuleCheck(), 0.0),), "mean", "weight=0.0"),
        ((Member(RuleCheck(), math.inf),), "mean", "weight=inf"),
        ((Member(RuleCheck(), 2.0),), "min", "no weights"),
        ((Member(RuleCheck()),), "median", "median"),
    ],
)
def test_what_does_not_go_together_is_refused(members, combine, named):
    with pytest.raises(ConfigError, match=named):
        Ensemble(members, combine)
