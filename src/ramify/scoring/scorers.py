"""The `Scorer` contract: nodes in, one number each out, in a declared range. A failure raises and is never a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from ramify.backends.base import Backend, Capability, FloatArray, Node
from ramify.errors import BudgetExhausted, CapabilityError, ScorerError
from ramify.scoring.problem import Problem


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Scores of some nodes.

    Attributes:
        values: [nodes] float64, each in the scorer's range.
        num_tokens: tokens charged to the verifier's purse for this call.
    """

    values: FloatArray
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a scorer would have to read to score a node.

    Attributes:
        prompt_tokens: of the problem.
        tokens: of the whole answer so far.
        unread: of these, those behind the nearest ancestor that it has scored.
        first: whether it has scored nothing of this tree yet.
    """

    prompt_tokens: int
    tokens: int
    unread: int
    first: bool


@runtime_checkable
class Scorer(Protocol):
    """Says how good partial or finished answers are; higher is better."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Capabilities of the backend it works with."""
        ...

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest score; an infinite end means that there is none. Scores themselves are finite."""
        ...

    def cost(self, reading: Reading) -> int:
        """Upper bound of the tokens charged for scoring a node, reserved before it is drawn; grows with each number."""
        ...

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """Score the nodes. Raises `ScorerError` when it cannot."""
        ...


async def checked_scores(scorer: Scorer, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
    """Run a scorer and hold it to its contract.

    Raises:
        ScorerError: it failed, or gave a wrong number of scores, NaN, or a score outside its range.
    """
    name = type(scorer).__name__
    try:
        batch = await scorer.score(nodes, problem, backend)
    except (ScorerError, BudgetExhausted, CapabilityError):
        raise
    except Exception as error:
        raise ScorerError(f"{name} failed on problem {problem.id!r}: {type(error).__name__}: {error}") from error
    values = np.asarray(batch.values, dtype=np.float64)
    if values.shape != (len(nodes),):
        raise ScorerError(f"{name} gave scores of shape {values.shape} for {len(nodes)} nodes: it must give one each")
    low, high = scorer.range
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= low) & (values <= high)))
    if wrong.size:
        raise ScorerError(
            f"{name} scored node {wrong[0]} of problem {problem.id!r} with {values[wrong[0]]}, outside its range "
            f"[{low}, {high}]: an error must be raised, not scored"
        )
    return ScoreBatch(values, batch.num_tokens)
