"""Ensemble: several scorers make one, each put on the scale of probabilities first if need be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ramify.backends.base import Backend, Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.registry import register
from ramify.scoring.calibration import CalibrationMap
from ramify.scoring.prm import ProcessReward
from ramify.scoring.problem import Problem
from ramify.scoring.rules import RuleCheck
from ramify.scoring.scorers import Reading, ScoreBatch, Scorer, checked_scores

Combination = Literal["mean", "min", "product", "rank-mean"]
_UNIT = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Member:
    """One scorer of an ensemble.

    Attributes:
        scorer: gives the score.
        weight: what it counts, above 0.
        map: from its scores to probabilities, learnt from answers whose correctness is known; None leaves them.
    """

    scorer: Scorer
    weight: float = 1.0
    map: CalibrationMap | None = None

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest score behind the map."""
        return self.scorer.range if self.map is None else (self.map.probabilities[0], self.map.probabilities[-1])


DEFAULT_MEMBERS = (Member(ProcessReward()), Member(RuleCheck()))
"""A reward model's judgement, and whether an answer is marked at all."""


@register("ensemble", kind="scorer", trade="approximate", page="techniques/scorers.md")
@dataclass(frozen=True, slots=True)
class Ensemble:
    """Several scorers' scores as one, from 0 to 1. Members are given from Python.

    Attributes:
        members: the scorers.
        combine: "mean" with weights; "min" without; "product" of powers, the weights being exponents; "rank-mean": the
            mean with weights of each answer's rank among those scored together, from 0 (worst) to 1, equals sharing
            theirs: it needs no common scale, and compares no further than the group.

    Raises:
        ConfigError: there are no members, a weight cannot work, or a member's scores are no probabilities where they
            would have to be.
    """

    members: tuple[Member, ...] = DEFAULT_MEMBERS
    combine: Combination = "mean"

    def __post_init__(self) -> None:
        if not self.members:
            raise ConfigError("an ensemble without members does not work: give one or more")
        if self.combine not in ("mean", "min", "product", "rank-mean"):
            raise ConfigError(f"combine={self.combine!r} does not work: choose mean, min, product or rank-mean")
        for member in self.members:
            self._check(member)

    def _check(self, member: Member) -> None:
        name = type(member.scorer).__name__
        if not (np.isfinite(member.weight) and member.weight > 0):
            raise ConfigError(f"weight={member.weight} of {name} does not work: it must be above 0")
        if self.combine == "min" and member.weight != 1:
            raise ConfigError(f"weight={member.weight} of {name} does not work with min, which has no weights")
        low, high = member.range
        if self.combine != "rank-mean" and not 0 <= low <= high <= 1:
            raise ConfigError(
                f"{name} gives scores from {low} to {high}, which do not go together with others: "
                "give its Member a map (CalibrationMap.fit), or use combine='rank-mean'"
            )

    @property
    def needs(self) -> frozenset[Capability]:
        """What any member needs."""
        return frozenset().union(*(member.scorer.needs for member in self.members))

    @property
    def logprobs(self) -> int:
        """The `logprobs` that nodes have to be drawn with: the most that a member reads."""
        return max(int(getattr(member.scorer, "logprobs", 0)) for member in self.members)

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to 1."""
        return _UNIT

    def cost(self, reading: Reading) -> int:
        """What all members cost."""
        return sum(member.scorer.cost(reading) for member in self.members)

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One number a node. A member that fails, fails the ensemble: the others do not stand in for it."""
        values, num_tokens = [], 0
        for member in self.members:
            batch = await checked_scores(member.scorer, nodes, problem, backend)
            values.append(batch.values if member.map is None else member.map(batch.values))
            num_tokens += batch.num_tokens
        return ScoreBatch(self.combined(np.stack(values)), num_tokens)

    def combined(self, values: FloatArray) -> FloatArray:
        """[members, nodes] scores, behind the maps, -> [nodes]."""
        weights = np.array([member.weight for member in self.members])
        found: FloatArray
        if self.combine == "min":
            found = values.min(axis=0)
        elif self.combine == "product":
            found = np.prod(values ** weights[:, None], axis=0)
        else:
            if self.combine == "rank-mean":
                values = np.stack([ranks(row) for row in values])
            found = weights @ values / weights.sum()
        return np.clip(found, 0.0, 1.0)  # a sum of rounded products may pass 1 by a bit


def ranks(values: FloatArray) -> FloatArray:
    """[nodes] scores -> ranks from 0 (worst) to 1; equal ones share the mean of theirs; 0.5 for one alone."""
    if len(values) == 1:
        return np.array([0.5])
    below = (values[None, :] < values[:, None]).sum(axis=1)
    equal = (values[None, :] == values[:, None]).sum(axis=1) - 1
    found: FloatArray = (below + equal / 2) / (len(values) - 1)
    return found
