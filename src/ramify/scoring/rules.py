"""Rule check: a program says whether an answer is right or well formed. Costs no tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramify.backends.base import Backend, Capability, Node
from ramify.errors import ScorerError
from ramify.registry import register
from ramify.scoring.extraction import marked_answer
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch

Check = Callable[[str, Problem], bool]


def marks_an_answer(text: str, problem: Problem) -> bool:
    """Whether the text marks an answer (``####``, ``\\boxed{}`` or an answer line)."""
    return marked_answer(text) is not None


@register("rule", kind="scorer", trade="approximate", page="techniques/scorers.md")
@dataclass(frozen=True, slots=True)
class RuleCheck:
    """1 where a check passes and 0 where it does not; by default, whether an answer is marked.

    Attributes:
        check: called with the answer's text and the problem; for example a task's `correct`.
    """

    check: Check = marks_an_answer

    @property
    def needs(self) -> frozenset[Capability]:
        """Nothing."""
        return frozenset()

    @property
    def range(self) -> tuple[float, float]:
        """0 or 1."""
        return (0.0, 1.0)

    def cost(self, reading: Reading) -> int:
        """No tokens."""
        return 0

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """1.0 or 0.0 a node. Raises `ScorerError` if the check gives anything but a truth value."""
        return ScoreBatch(np.array([_truth(self.check(node.text, problem)) for node in nodes], dtype=np.float64))


def _truth(verdict: object) -> float:
    if not isinstance(verdict, bool | np.bool_):
        raise ScorerError(f"the rule check gave {verdict!r}: it must give True or False")
    return float(verdict)
