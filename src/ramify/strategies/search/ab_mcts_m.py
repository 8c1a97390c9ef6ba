"""AB-MCTS-M: adaptive branching with a mixed model over the children of each answer (arXiv:2503.04412)."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.strategies.registry import strategy
from ramify.strategies.search.ab_mcts import AdaptiveBranching
from ramify.strategies.search.ab_mcts_tree import Branching, MixedBranching


@strategy("ab-mcts-m", kind="approximate", paper="arXiv:2503.04412", needs=("scorer",))
@dataclass(frozen=True)
class ABMCTSM(AdaptiveBranching):
    """Adaptive branching by a mixed model: children are groups of scores, a new answer is the draw of a new group.

    A subtree of at least four answers, three quarters of them with the same score, is not refined any more. See
    `AdaptiveBranching` for the options.
    """

    def branching(self) -> Branching:
        """The largest draw among a new group and the children's."""
        return MixedBranching()
