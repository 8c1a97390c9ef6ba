"""Answer extraction and equivalence, rule checks and reward models."""

from ramify.scoring.confidence import DeepConf, InversePerplexity, SelfCertainty
from ramify.scoring.ensemble import Ensemble, Member
from ramify.scoring.equivalence import Equivalence, KeyedBy, MarkedAnswer, NumberAnswer
from ramify.scoring.generative_verifier import GenerativeVerifier
from ramify.scoring.listwise import ListwiseJudge
from ramify.scoring.logprob import MeanLogprob
from ramify.scoring.orm import OutcomeReward
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.rules import RuleCheck
from ramify.scoring.scorers import Reading, ScoreBatch, Scorer
from ramify.scoring.unit_tests import UnitTests

__all__ = [
    "DeepConf",
    "Ensemble",
    "Equivalence",
    "GenerativeVerifier",
    "InversePerplexity",
    "KeyedBy",
    "ListwiseJudge",
    "MarkedAnswer",
    "MeanLogprob",
    "Member",
    "NumberAnswer",
    "OutcomeReward",
    "Problem",
    "ProcessReward",
    "Reading",
    "RuleCheck",
    "ScoreBatch",
    "Scorer",
    "SelfCertainty",
    "UnitTests",
]
