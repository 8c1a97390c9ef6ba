"""What Monte-Carlo tree searches share: a branch's statistics, the selection rules, virtual losses and the backup.

Pure: values go in, choices come out, and nothing is drawn. Values lie in [0, 1]; a loss is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")

PUCT_BASE = 19652.0  # AlphaZero's: the prior's weight grows by the logarithm of visits over this many
PUCT_EXPLORATION = 1.25
UCT_EXPLORATION = math.sqrt(2.0)


@dataclass(slots=True, eq=False)
class Branch(Generic[S]):
    """One node of a search tree and what was found below it.

    Attributes:
        state: what it stands for.
        parent: the branch above; None for the root.
        prior: the policy's probability of it among its siblings.
        value: its own evaluation, once it has one.
        first_value: what its mean is taken for before anything was found.
        children: what it was expanded to, in launch order.
        visits: evaluations of it and below it.
        total: their sum.
        in_flight: virtual losses: choices that go through it and are not evaluated yet.
    """

    state: S
    parent: Branch[S] | None = None
    prior: float = 1.0
    value: float = 0.0
    first_value: float = 0.0
    children: list[Branch[S]] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    in_flight: int = 0

    @property
    def mean(self) -> float:
        """The mean of what was found, each virtual loss counted as a 0."""
        seen = self.visits + self.in_flight
        return self.total / seen if seen else self.first_value

    @property
    def path(self) -> list[Branch[S]]:
        """From the root to here."""
        branches = [self]
        while branches[-1].parent is not None:
            branches.append(branches[-1].parent)
        return branches[::-1]

    def add(self, state: S, prior: float = 1.0, first_value: float = 0.0) -> Branch[S]:
        """A new child."""
        child = Branch(state, self, prior, first_value=first_value)
        self.children.append(child)
        return child

    def back_up(self, value: float) -> None:
        """Count an evaluation here and in everything above."""
        for branch in self.path:
            branch.visits += 1
            branch.total += value

    def walk(self) -> Iterator[Branch[S]]:
        """This branch and all below it, parents first, children in order."""
        stack = [self]
        while stack:
            branch = stack.pop()
            yield branch
            stack += reversed(branch.children)


Rule = Callable[[Branch[S], Branch[S]], float]
"""(parent, child) to the child's merit; the first child of most merit is gone to."""


def puct(exploration: float = PUCT_EXPLORATION) -> Rule[S]:
    """Mean plus prior times ``(log((N + base + 1) / base) + exploration) * sqrt(N) / (1 + n)``."""

    def merit(parent: Branch[S], child: Branch[S]) -> float:
        above, here = parent.visits + parent.in_flight, child.visits + child.in_flight
        weight = math.log((above + PUCT_BASE + 1) / PUCT_BASE) + exploration
        return child.mean + child.prior * weight * math.sqrt(above) / (1 + here)

    return merit


def uct(exploration: float = UCT_EXPLORATION) -> Rule[S]:
    """Mean plus ``exploration * sqrt(log(N) / n)``; a child without visits comes first."""

    def merit(parent: Branch[S], child: Branch[S]) -> float:
        above, here = parent.visits + parent.in_flight, child.visits + child.in_flight
        return child.mean + exploration * math.sqrt(math.log(max(above, 1)) / here) if here else math.inf

    return merit


def descend(root: Branch[S], rule: Rule[S]) -> Branch[S]:
    """From the root, the child of most merit again and again (the first of equals), down to a leaf."""
    branch = root
    while branch.children:
        parent = branch
        branch = max(parent.children, key=lambda child: rule(parent, child))
    return branch


def choose_leaves(root: Branch[S], rule: Rule[S], n: int) -> list[Branch[S]]:
    """Up to `n` different leaves, each choice under the virtual losses of those before it.

    Ends early at a leaf that is chosen already. The losses stay until `land`.
    """
    chosen: list[Branch[S]] = []
    while len(chosen) < n:
        leaf = descend(root, rule)
        if leaf in chosen:
            break
        chosen.append(leaf)
        for branch in leaf.path:
            branch.in_flight += 1
    return chosen


def land(leaf: Branch[S]) -> None:
    """Take a chosen leaf's virtual loss back."""
    for branch in leaf.path:
        branch.in_flight -= 1
