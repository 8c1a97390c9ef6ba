"""The model's own confidence in its last step, as a reward for particle methods. Costs no tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramify.backends.base import Backend, Capability, Node
from ramify.errors import ScorerError
from ramify.registry import register
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch


@register(
    "step-confidence",
    kind="scorer",
    trade="approximate",
    needs=(Capability.LOGPROBS,),
    page="techniques/particle-filter.md",
)
@dataclass(frozen=True, slots=True)
class StepConfidence:
    """The geometric mean of the probabilities that the model gave to the tokens of its last step, from 0 to 1."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Log-probabilities of drawn tokens."""
        return frozenset({Capability.LOGPROBS})

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to 1."""
        return (0.0, 1.0)

    def cost(self, reading: Reading) -> int:
        """No tokens."""
        return 0

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One confidence a node. Raises `ScorerError` for a node whose log-probabilities are not known."""
        return ScoreBatch(np.array([step_confidence(node) for node in nodes], dtype=np.float64))


def step_confidence(node: Node) -> float:
    """Geometric mean of the probabilities of the tokens that a node's own extension drew; 1 if it drew none.

    Raises:
        ScorerError: the node was drawn without log-probabilities.
    """
    if node.num_new_tokens == 0:
        return 1.0
    if node.token_logprobs is None:
        raise ScorerError("the node carries no log-probabilities: draw it with logprobs=0")
    own = node.token_logprobs[-node.num_new_tokens :]
    return min(1.0, math.exp(math.fsum(own) / len(own)))
