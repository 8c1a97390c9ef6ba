"""How a run stands: the answers' keys, the candidates reported last, and the best of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ramify.backends.base import FloatArray, Node
from ramify.randomness import BranchKey
from ramify.scoring.equivalence import Equivalence
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.result import Candidate

Numbers = Sequence[float] | FloatArray


class Standing:
    """What a run would give if it were stopped now.

    Attributes:
        candidates: those reported last, each once.
        best: the chosen one's node.
        finished: every answer that came to its end, in launch order: what is left if nothing was reported.
    """

    def __init__(self, problem: Problem, equivalence: Equivalence) -> None:
        self.candidates: tuple[Candidate, ...] = ()
        self.best: Node | None = None
        self.finished: list[Node] = []
        self.reported = False
        self._problem = problem
        self._equivalence = equivalence
        self._answers: dict[tuple[BranchKey, bool], Hashable | None] = {}

    def answer(self, node: Node) -> Hashable | None:
        """The key of a node's answer; None while it is open. Of a cut answer only whole lines are read."""
        if node.open:
            return None
        whole = node.finish_reason == "stop"
        if (node.key, whole) not in self._answers:
            text = node.text if whole else node.text.rpartition("\n")[0]
            self._answers[node.key, whole] = self.key(text)
        return self._answers[node.key, whole]

    def key(self, text: str) -> Hashable | None:
        """The key of the answer in a text; None if there is none."""
        return self._equivalence.key(text, self._problem) if text else None

    def replace_best(self, node: Node) -> None:
        """The best answer has been completed: the candidate that stood for it becomes `node`."""
        done = Candidate(node, self.answer(node))
        old = [candidate for candidate in self.candidates if self.best is None or candidate.node.key != self.best.key]
        self.candidates, self.best, self.reported = (*old, done), node, True

    def report(self, nodes: Sequence[Node], best: int | None, scores: Numbers | None, weights: Numbers | None) -> None:
        """Take the candidates; a node listed twice counts once, with its weights added."""
        merged: dict[BranchKey, Candidate] = {}
        for i, node in enumerate(nodes):
            score = None if scores is None else float(scores[i])
            weight = None if weights is None else float(weights[i])
            known = merged.get(node.key)
            if known is not None and known.weight is not None and weight is not None:
                weight += known.weight
            merged[node.key] = Candidate(node, self.answer(node), score, weight)
        self.reported = True
        self.candidates = tuple(merged.values())
        self.best = None if best is None else nodes[best]

    def fall_back(self) -> bool:
        """If nothing was reported, take the finished answers, the first readable one as best; whether it did so."""
        if self.reported or not self.finished:
            return False
        readable = (i for i, node in enumerate(self.finished) if self.answer(node) is not None)
        self.report(self.finished, next(readable, 0), None, None)
        return True
