"""`Result`: what a strategy gives back: the best answer, all candidates, what it cost and why it ended."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from ramify.backends.base import Node
from ramify.randomness import BranchKey
from ramify.strategies.kernel.ledger import Ledger
from ramify.strategies.kernel.trace import Trace

StopReason = Literal["finished", "budget", "certain", "cancelled"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer that the choice was made among.

    Attributes:
        node: the branch.
        answer: its key under the run's equivalence; None if no answer can be read.
        score: a scorer's number, where one was used.
        weight: its share in a vote or its particle weight, where there is one.
    """

    node: Node
    answer: Hashable | None = None
    score: float | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one strategy on one problem.

    Attributes:
        best: the chosen branch; the root if nothing had been drawn when the run was stopped.
        answer: its key under the run's equivalence; None if no answer can be read.
        candidates: all answers it was chosen among, in launch order, each once.
        ledger: what it cost.
        stop_reason: "finished"; "budget" if a limit refused or cut a branch; "certain" if a stop rule was satisfied;
            "cancelled".
        trace: events and tree.
        problem_id, strategy: what was run.
        notes: remarks of the method, such as a bias that an option brings.
    """

    best: Node
    answer: Hashable | None
    candidates: tuple[Candidate, ...]
    ledger: Ledger
    stop_reason: StopReason
    trace: Trace = field(repr=False)
    problem_id: str = ""
    strategy: str = ""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The chosen answer's whole text."""
        return self.best.text

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON (without the trace, which has its own form)."""
        return {
            "problem_id": self.problem_id,
            "strategy": self.strategy,
            "text": self.best.text,
            "answer": show_answer(self.answer),
            "stop_reason": self.stop_reason,
            "notes": list(self.notes),
            "ledger": self.ledger.to_dict(),
            "candidates": [
                {
                    "text": candidate.node.text,
                    "answer": show_answer(candidate.answer),
                    "score": candidate.score,
                    "weight": candidate.weight,
                    "finish_reason": candidate.node.finish_reason,
                    "num_tokens": candidate.node.num_tokens,
                }
                for candidate in self.candidates
            ],
        }


def show_answer(answer: Hashable | None) -> str | None:
    """An answer's key as text (a whole `Fraction` prints as a whole number)."""
    return None if answer is None else str(answer)


def path_tokens(candidates: Iterable[Candidate]) -> int:
    """Tokens drawn on the paths of some candidates, what they share counted once."""
    seen: set[BranchKey] = set()
    total = 0
    for candidate in candidates:
        node: Node | None = candidate.node
        while node is not None and node.key not in seen:
            seen.add(node.key)
            total += node.num_new_tokens
            node = node.parent
    return total
