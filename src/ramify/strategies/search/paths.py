"""What the searches share: who descends from whom, which paths are the same, and the choice among what was finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ramify.backends.base import FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.votes import Numbers, best_of, finished, vote

Select = Literal["best", "vote"]
"""best: the finished path of highest score. vote: the answer whose finished paths have the highest sum of scores."""


def distinct(nodes: Sequence[Node]) -> list[Node]:
    """The nodes without repetitions of the same answer so far; the first of equals stays."""
    first: dict[tuple[object, bool], Node] = {}
    for node in nodes:
        first.setdefault((node.tokens or node.text, node.open), node)
    return list(first.values())


def families(parents: Sequence[Node], drawn: Sequence[Node]) -> list[list[Node]]:
    """The children of each parent, in launch order; a parent that the budget left without any stands there, closed."""
    children: dict[object, list[Node]] = {parent.key: [] for parent in parents}
    for node in drawn:
        assert node.parent is not None
        children[node.parent.key].append(node)
    cut = (replace(parent, finish_reason="length", step_end=False) for parent in parents)
    return [children[parent.key] or [closed] for parent, closed in zip(parents, cut, strict=True)]


def ranked(nodes: Sequence[Node], scores: Numbers, keep: int) -> list[int]:
    """Indices of the `keep` open nodes with the highest scores (the earlier of equals), in launch order."""
    order = sorted((i for i, node in enumerate(nodes) if node.open), key=lambda i: -float(scores[i]))
    return sorted(order[:keep])


def choose(context: Context, nodes: Sequence[Node], scores: FloatArray, select: Select) -> int | None:
    """Index of the chosen path among `nodes`, which are distinct; the first of equals."""
    among = finished(nodes)
    winner = None
    if select == "vote":
        winner = vote([context.answer(nodes[i]) for i in among], scores[among], merits=scores[among])
    return best_of(scores, among) if winner is None else among[winner]


def draw_without_replacement(log_weights: FloatArray, count: int, uniforms: FloatArray) -> list[int]:
    """`count` indices drawn one after the other in proportion to ``exp(log_weights)``, sorted.

    The largest of ``log_weights`` plus Gumbel noise have that law (Kool et al., arXiv:1903.06059). A weight of minus
    infinity comes last.
    """
    noisy = log_weights - np.log(-np.log(uniforms))
    order = sorted(range(len(noisy)), key=lambda i: -noisy[i])
    return sorted(order[:count])


def check_tree(n: int, m: int) -> None:
    """Refuse widths that do not fit. Raises `ConfigError`."""
    if n < 1 or m < 1 or n % m:
        raise ConfigError(f"n={n}, m={m} do not work: n must be a multiple of m, both at least 1")


def check_vote(select: Select, scorer: Scorer) -> None:
    """Refuse scores that cannot weigh a vote. Raises `ConfigError`."""
    if select == "vote" and scorer.range[0] < 0:
        raise ConfigError(
            f"select=vote needs scores of 0 or more; {type(scorer).__name__} may give less: use select=best"
        )
