"""AB-MCTS-A: adaptive branching with one posterior a choice: draw a new answer, or refine one (arXiv:2503.04412)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ramify.strategies.registry import strategy
from ramify.strategies.search.ab_mcts import AdaptiveBranching
from ramify.strategies.search.ab_mcts_posteriors import Posterior, beta_draw, normal_draw
from ramify.strategies.search.ab_mcts_tree import Branching, PosteriorBranching


@strategy("ab-mcts-a", kind="approximate", paper="arXiv:2503.04412", needs=("scorer",))
@dataclass(frozen=True)
class ABMCTSA(AdaptiveBranching):
    """Adaptive branching by node aggregation: at each answer, a Thompson draw decides between wider and deeper.

    See `AdaptiveBranching` for the other options.

    Attributes:
        prior: "normal" takes scores for normal with unknown mean and variance, "beta" for shares of a success.
    """

    prior: Literal["normal", "beta"] = "normal"

    def branching(self) -> Branching:
        """One posterior for a new child, one for going on, one for each child."""
        return PosteriorBranching(self.posterior())

    def posterior(self) -> Posterior:
        """The draw of an expected score."""
        return normal_draw if self.prior == "normal" else beta_draw
