"""Answer extraction and equivalence, rule checks and reward models."""

from ramify.scoring.confidence import DeepConf, InversePerplexity, SelfCertainty
from ramify.scoring.equivalence import Equivalence, KeyedBy, MarkedAnswer, NumberAnswer
from ramify.scoring.logprob import MeanLogprob
from ramify.scoring.orm import OutcomeReward
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.rules import RuleCheck
from ramify.scoring.scorers import Reading, ScoreBatch, Scorer

__all__ = [
    "DeepConf",
    "Equivalence",
    "InversePerplexity",
    "KeyedBy",
    "MarkedAnswer",
    "MeanLogprob",
    "NumberAnswer",
    "OutcomeReward",
    "Problem",
    "ProcessReward",
    "Reading",
    "RuleCheck",
    "ScoreBatch",
    "Scorer",
    "SelfCertainty",
]
