"""Mean log-probability: how sure the model was of its own words. Costs no tokens."""

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


@register("logprob", kind="scorer", trade="approximate", needs=(Capability.LOGPROBS,), page="techniques/scorers.md")
@dataclass(frozen=True, slots=True)
class MeanLogprob:
    """The mean log-probability of the answer's tokens under the model itself (natural logarithm, 0 at most)."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Log-probabilities of drawn tokens."""
        return frozenset({Capability.LOGPROBS})

    @property
    def range(self) -> tuple[float, float]:
        """Up to 0, without a lower end."""
        return (-math.inf, 0.0)

    def cost(self, reading: Reading) -> int:
        """No tokens."""
        return 0

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One mean a node. Raises `ScorerError` for a node whose log-probabilities are not known."""
        return ScoreBatch(np.array([mean_logprob(node) for node in nodes], dtype=np.float64))


def mean_logprob(node: Node) -> float:
    """Mean log-probability of a node's tokens; 0 for a node without tokens.

    Raises:
        ScorerError: the node was drawn without log-probabilities.
    """
    if node.num_tokens == 0:
        return 0.0
    total = node.cum_logprob
    if total is None:
        raise ScorerError("the node carries no log-probabilities: draw it with logprobs=0")
    return min(0.0, total / node.num_tokens)
