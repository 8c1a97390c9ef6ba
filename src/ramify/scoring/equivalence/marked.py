"""The usual equivalences of tasks with marked answers: exact numbers, else text."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ramify.registry import register
from ramify.scoring.equivalence.base import PAGE
from ramify.scoring.equivalence.numbers import parse_number
from ramify.scoring.equivalence.text import normalise
from ramify.scoring.extraction import last_number, marked_answer
from ramify.scoring.problem import Problem


@register("marked", kind="equivalence", trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class MarkedAnswer:
    """The marked answer, as an exact number where it is one, else as text without case and spacing.

    Attributes:
        fallback: read the last number of the text where nothing is marked.
    """

    fallback: bool = True

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """A `Fraction`, or normalised text, or None."""
        found = marked_answer(text)
        if found is not None:
            number = parse_number(found)
            return number if number is not None else normalise(found)
        found = last_number(text) if self.fallback else None
        return parse_number(found) if found is not None else None


@register("number", kind="equivalence", trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class NumberAnswer:
    """The marked answer (or the last number of the text) as an exact fraction; anything else is no answer."""

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """A `Fraction` or None."""
        found = marked_answer(text)
        number = parse_number(found) if found is not None else None
        if number is None:
            written = last_number(found if found is not None else text)
            number = parse_number(written) if written is not None else None
        return number
