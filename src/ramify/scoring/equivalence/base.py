"""The contract of an equivalence, and the simplest way to fill it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ramify.scoring.problem import Problem

PAGE = "techniques/equivalence.md"


@runtime_checkable
class Equivalence(Protocol):
    """Gives equal keys to answers that mean the same: reflexive, symmetric and transitive because keys are compared.

    A key depends on the text and the problem alone. `key` may be called from several threads, with any text: it never
    hangs. `ramify.scoring.testing.check_equivalence` holds an implementation to this.
    """

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """The key of the answer that `text` (a whole solution) gives, or None if none can be read."""
        ...


@dataclass(frozen=True, slots=True)
class KeyedBy:
    """An equivalence made of a function, for example a task's own `answer` method."""

    function: Callable[[str, Problem], Hashable | None]

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """Whatever the function gives."""
        return self.function(text, problem)
