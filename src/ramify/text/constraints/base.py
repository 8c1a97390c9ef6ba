"""The `Constraint` contract: plain data that, bound to a vocabulary, says which tokens may follow some tokens.

A bound constraint is a pure function. What it remembers between calls changes its speed alone, so one may be shared by
all branches, problems and runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ramify.sampling import TokenIds
from ramify.text.constraints.vocabulary import Vocabulary

BoolArray = npt.NDArray[np.bool_]
NextTokens = Callable[[TokenIds], BoolArray]
"""The answer's ids so far -> which ids may come next, [vocabulary]. The end ids are among them where the answer may
end there; none is where it can be neither continued nor ended. Arrays are shared: do not write to them."""


@runtime_checkable
class Constraint(Protocol):
    """What answers must be like. Implementations are frozen dataclasses, so that equal ones are bound once."""

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """The constraint for one model's tokens. Raises `ConfigError` where it cannot hold for them."""
        ...


@dataclass(frozen=True, slots=True)
class AllOf:
    """Several constraints at once.

    Attributes:
        parts: the constraints; none allows everything.
    """

    parts: tuple[Constraint, ...]

    def over(self, vocabulary: Vocabulary) -> NextTokens:
        """Allows what all parts allow."""
        bound = [part.over(vocabulary) for part in self.parts]

        def allowed(tokens: TokenIds) -> BoolArray:
            mask = text_mask(vocabulary) | end_mask(vocabulary)
            for part in bound:
                mask = mask & part(tokens)
            return mask

        return allowed


@lru_cache(maxsize=32)
def bind(constraint: Constraint, vocabulary: Vocabulary) -> NextTokens:
    """`constraint.over(vocabulary)`, kept for the next run."""
    return constraint.over(vocabulary)


@lru_cache(maxsize=8)
def text_mask(vocabulary: Vocabulary) -> BoolArray:
    """The tokens that are text, [vocabulary]."""
    return np.array([len(piece) > 0 for piece in vocabulary.pieces], dtype=np.bool_) & ~end_mask(vocabulary)


@lru_cache(maxsize=8)
def end_mask(vocabulary: Vocabulary) -> BoolArray:
    """The tokens that end an answer, [vocabulary]."""
    mask = np.zeros(len(vocabulary), dtype=np.bool_)
    mask[[index for index in vocabulary.end_ids if index < len(vocabulary)]] = True
    return mask
