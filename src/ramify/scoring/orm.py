"""Outcome reward: a model scores the answer as a whole (Cobbe et al., arXiv:2110.14168)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramify.backends.base import Backend, Capability, Node, StepScores
from ramify.errors import ScorerError
from ramify.registry import register
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch


@register(
    "orm",
    kind="scorer",
    trade="approximate",
    needs=(Capability.REWARD, "second model"),
    paper="arXiv:2110.14168",
    page="techniques/reward-models.md",
)
@dataclass(frozen=True, slots=True)
class OutcomeReward:
    """An outcome reward model's score of the answer, read at its last token.

    Attributes:
        model: the reward model, by the name under which the backend serves it.
        probability: squash a raw score by the logistic function. A model with several labels gives the probability of
            the good one, which stays as it is.
    """

    model: str = ""
    probability: bool = False

    @property
    def needs(self) -> frozenset[Capability]:
        """Rewards."""
        return frozenset({Capability.REWARD})

    @property
    def range(self) -> tuple[float, float]:
        """Without ends for raw scores, else from 0 to 1."""
        return (0.0, 1.0) if self.probability else (-np.inf, np.inf)

    def cost(self, reading: Reading) -> int:
        """What the model has not read yet: it reads on from the nearest scored ancestor, and the prompt once a tree."""
        return reading.unread + (reading.prompt_tokens if reading.first else 0)

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One reward a node. Raises `ScorerError` where the model scores steps and not answers."""
        if not self.model:
            raise ScorerError("scorer=orm needs the name of an outcome reward model: model=NAME")
        rewards = await backend.reward(nodes, self.model)
        if len(rewards) != len(nodes):
            raise ScorerError(f"reward model {self.model!r} answered for {len(rewards)} of {len(nodes)} nodes")
        return ScoreBatch(np.array([self._value(reward) for reward in rewards]), sum(r.num_tokens for r in rewards))

    def _value(self, reward: StepScores) -> float:
        if len(reward.scores) != 1:
            raise ScorerError(
                f"{self.model!r} gave {len(reward.scores)} scores for one answer: it is a process reward model, so use "
                "scorer=prm"
            )
        (score,) = reward.scores
        if self.probability and reward.range != (0.0, 1.0):
            return float(1 / (1 + np.exp(-np.clip(score, -700, 700))))
        return score
