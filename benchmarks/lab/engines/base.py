"""What the laboratory asks of an engine: take requests, step, say which tokens came. Token ids only; one thread drives.

An adapter uses the engine's own continuous batching and prefix cache where it has them, and otherwise does what its
users would do. It runs in a process of its own, and imports the engine only when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


class MissingError(Exception):
    """An engine, or a way of running one, is not there; the text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to continue.

    Attributes:
        prompt: token ids.
        new_tokens: so many are drawn, whatever they are.
        samples: continuations of the prompt.
        temperature: 0 is greedy.
        seed: of the draws.
    """

    prompt: tuple[int, ...]
    new_tokens: int
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """Some tokens of a sequence. `sequence` counts the continuations of all requests in the order they were added."""

    sequence: int
    tokens: tuple[int, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a workload will need at most.

    Attributes:
        sequences: at once.
        tokens: of one sequence, prompt and answer.
        shared: whether prompts have long common beginnings; an engine may lay out its memory accordingly.
        total: tokens of all sequences together, as if nothing were shared; by default all have the most.
    """

    sequences: int
    tokens: int
    shared: bool = False
    total: int = 0

    def __post_init__(self) -> None:
        if not self.total:
            object.__setattr__(self, "total", self.sequences * self.tokens)

    def holds(self, other: Capacity) -> bool:
        """Whether what was made for this also does for another."""
        return other.sequences <= self.sequences and other.tokens <= self.tokens and other.total <= self.total


class Engine(Protocol):
    """An engine under test."""

    def prepare(self, capacity: Capacity) -> None:
        """Make room; called before each workload. What was cached may be lost."""
        ...

    def add(self, request: Request) -> range:
        """Take a request; the numbers of its sequences."""
        ...

    def step(self) -> list[Token]:
        """Do some work; what came of it."""
        ...

    def busy(self) -> bool:
        """Whether `step` has something to do."""
        ...

    def logits(self, ids: Sequence[int]) -> Logits:
        """[len(ids), vocabulary] logits of the next token after each position."""
        ...

    def about(self) -> dict[str, str]:
        """Versions and settings, for the report."""
        ...

    def weights_bytes(self) -> int:
        """Bytes of the weights in memory, where the engine knows; 0 stands for the size of their files."""
        ...


Maker = Callable[[Path, int], Engine]
"""Makes an engine from the folder of a model's files and a number of threads. Raises `MissingError`."""
