"""Process reward: a model scores each step so far, and one aggregation makes a number of them.

Let's Verify Step by Step (arXiv:2305.20050) takes the product, Math-Shepherd (arXiv:2312.08935) the minimum; the last
step's score is what search uses (arXiv:2408.03314).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ramify.backends.base import Backend, Capability, Node, StepScores
from ramify.errors import ConfigError, ScorerError
from ramify.registry import register
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch

Aggregation = Literal["last", "min", "prod", "mean"]


@register(
    "prm",
    kind="scorer",
    trade="approximate",
    needs=(Capability.REWARD, "second model"),
    paper="arXiv:2305.20050",
    page="techniques/scorers.md",
)
@dataclass(frozen=True, slots=True)
class ProcessReward:
    """A process reward model's probability that the answer is right so far, from 0 to 1.

    Attributes:
        model: the reward model, by the name under which the backend serves it.
        agg: how the steps' scores become one: the last, the least, the product or the mean.
        marks: tokens that the model puts in behind each step: 1 for models with a mark of their own (Qwen2.5-Math-PRM,
            Math-Shepherd). They are read and charged, so they have to be reserved.
    """

    model: str = "nano-prm"
    agg: Aggregation = "last"
    marks: int = 0

    def __post_init__(self) -> None:
        if self.marks not in (0, 1):
            raise ConfigError(
                f"marks={self.marks} does not work: 1 for a model that puts a mark behind each step, else 0"
            )

    @property
    def needs(self) -> frozenset[Capability]:
        """Process rewards."""
        return frozenset({Capability.REWARD})

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to 1."""
        return (0.0, 1.0)

    def cost(self, reading: Reading) -> int:
        """What the model has not read yet: it reads on from the nearest scored ancestor, and the prompt once a tree."""
        marks = self.marks * (reading.unread + 1)  # each token may end a step, and the last step is closed
        return reading.unread + marks + (reading.prompt_tokens if reading.first else 0)

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One reward a node. Raises `ScorerError` for a node in which the model found no step."""
        rewards = await backend.reward(nodes, self.model)
        if len(rewards) != len(nodes):
            raise ScorerError(f"reward model {self.model!r} answered for {len(rewards)} of {len(nodes)} nodes")
        if self.marks == 0 and any(reward.num_marks for reward in rewards):
            raise ScorerError(
                f"reward model {self.model!r} puts a mark of its own behind each step: give marks=1 (prm:marks=1), so "
                "that these tokens are reserved"
            )
        if any(reward.range != (0.0, 1.0) for reward in rewards):
            raise ScorerError(f"{self.model!r} gives raw scores of whole answers: use scorer=orm")
        values = np.array([aggregate(reward, self.agg) for reward in rewards])
        return ScoreBatch(values, sum(reward.num_tokens for reward in rewards))


def aggregate(reward: StepScores, agg: Aggregation) -> float:
    """One number from the scores of an answer's steps.

    Raises:
        ScorerError: there are none, or `agg` is unknown.
    """
    scores = np.asarray(reward.scores, dtype=np.float64)
    if scores.size == 0:
        raise ScorerError("the reward model found no step to score: check the step marks it was trained on")
    match agg:
        case "last":
            return float(scores[-1])
        case "min":
            return float(scores.min())
        case "prod":
            return float(scores.prod())
        case "mean":
            return float(scores.mean())
    raise ScorerError(f"unknown aggregation {agg!r}: choose from last, min, prod, mean")
