"""Adaptive branching as ask and tell: which answer to refine next, or whether to draw a new one (arXiv:2503.04412).

The state is plain data, a list of trials; every posterior is derived from it. A search that is stored as JSON and read
back goes on as if it had never stopped. Nothing here draws or scores answers: whoever asks does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ramify.errors import ConfigError
from ramify.strategies.search.ab_mcts_posteriors import Posterior, mixed_model_draws

ROOT = 0
PRUNE_FROM = 4  # nodes of a subtree
PRUNE_EQUAL = 0.75  # share of them with one score

Uniforms = Callable[[str, int], Sequence[float]]
"""(a name, a count) to so many numbers in (0, 1): the same for the same name."""


class Trial(msgspec.Struct, frozen=True):
    """One answer: node i + 1 of the tree is trial i, node 0 is the root.

    Attributes:
        parent: the node it was made from; 0 for a fresh answer.
        score: in [0, 1].
        generator: which generator made it.
    """

    parent: int
    score: float
    generator: int = 0


class Trials(msgspec.Struct):
    """The state of a search: all trials so far, in the order in which they were told."""

    trials: list[Trial] = []  # msgspec copies an empty default

    def tell(self, parent: int, score: float, generator: int = 0) -> int:
        """Add an answer; gives its node.

        Raises:
            ConfigError: there is no such parent, or the score lies outside [0, 1].
        """
        if not 0 <= parent <= len(self.trials) or not 0 <= score <= 1:
            raise ConfigError(f"parent={parent}, score={score} do not work: name a node, and a score from 0 to 1")
        self.trials.append(Trial(parent, float(score), generator))
        return len(self.trials)

    def children(self, node: int) -> list[int]:
        """The answers made from a node, in order."""
        return [i + 1 for i, trial in enumerate(self.trials) if trial.parent == node]

    def scores(self, nodes: Sequence[int]) -> list[float]:
        """Scores of answers."""
        return [self.trials[node - 1].score for node in nodes]

    def below(self, node: int) -> list[int]:
        """A node and every answer that descends from it, in order (the root is no answer and left out)."""
        inside = {node}
        for i, trial in enumerate(self.trials):
            if trial.parent in inside:
                inside.add(i + 1)
        return sorted(inside - {ROOT})

    def to_json(self) -> bytes:
        """The state as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> Trials:
        """The state that `to_json` wrote. Raises `msgspec.ValidationError` for anything else."""
        return msgspec.json.decode(text, type=cls)


class Branching(Protocol):
    """Chooses the node to make the next answer from: the root for a fresh one."""

    def choose(self, trials: Trials, uniforms: Uniforms) -> int:
        """The node."""
        ...


class PosteriorBranching:
    """AB-MCTS-A: at each node one posterior for GEN, one for CONT and one for each child; the largest draw wins.

    GEN has seen the scores of the node's children, CONT those of everything below them, and a child those of itself and
    of everything below it.
    """

    def __init__(self, posterior: Posterior) -> None:
        self._posterior = posterior

    def choose(self, trials: Trials, uniforms: Uniforms) -> int:
        """Go down while CONT wins."""
        node = ROOT
        while children := trials.children(node):
            deeper = [below for child in children for below in trials.below(child) if below != child]
            generate = self._draw(trials, children, uniforms, f"gen/{node}")
            if generate >= self._draw(trials, deeper, uniforms, f"cont/{node}"):
                break
            draws = {child: self._draw(trials, trials.below(child), uniforms, f"child/{child}") for child in children}
            node = max(children, key=lambda child: draws[child])
        return node

    def _draw(self, trials: Trials, nodes: Sequence[int], uniforms: Uniforms, name: str) -> float:
        return self._posterior(trials.scores(nodes), uniforms(name, 2))


class MixedBranching:
    """AB-MCTS-M: at each node one mixed model, children as groups; GEN is the draw of a group not seen yet.

    A child whose subtree has at least four answers, three quarters of them with one score, is not gone to any more.
    """

    def choose(self, trials: Trials, uniforms: Uniforms) -> int:
        """Go down while a child's draw beats the new group's."""
        node = ROOT
        while children := trials.children(node):
            groups = [trials.scores(trials.below(child)) for child in children]
            fresh, draws = mixed_model_draws(groups, uniforms(f"mixed/{node}", 3 + len(groups)))
            going = [i for i, scores in enumerate(groups) if not is_settled(scores)]
            best = max(going, key=lambda i: draws[i], default=None)
            if best is None or fresh >= draws[best]:
                break
            node = children[best]
        return node


def is_settled(scores: Sequence[float]) -> bool:
    """Whether a subtree has shown that it goes on giving one score."""
    return len(scores) >= PRUNE_FROM and max(Counter(scores).values()) >= PRUNE_EQUAL * len(scores)


def choose_generator(trials: Trials, count: int, posterior: Posterior, uniforms: Uniforms) -> int:
    """Thompson sampling over generators by the scores that each had anywhere in the tree."""
    if count == 1:
        return 0
    seen = [[trial.score for trial in trials.trials if trial.generator == i] for i in range(count)]
    draws = [posterior(scores, uniforms(f"generator/{i}", 2)) for i, scores in enumerate(seen)]
    return max(range(count), key=lambda i: draws[i])
