"""Answer equivalence: a solution's text becomes a hashable key, the same for answers that mean the same.

`None` means that no answer can be read; it never votes. Whoever owns a kind of answer (a task, a plug-in) hands its own
`Equivalence` to the run. Numbers are compared exactly, as fractions, with bounds on their length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

from ramify.registry import register
from ramify.scoring.extraction import last_number, marked_answer
from ramify.scoring.problem import Problem

LONGEST_NUMBER = 60  # characters: beyond it two answers are equal only as text, and conversion stays cheap

_PLAIN = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_EXPONENT = re.compile(r"(.+?)[eE]([-+]?[0-9]{1,2})")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?\{([^{}]+)\}\s?\{([^{}]+)\}")


@runtime_checkable
class Equivalence(Protocol):
    """Gives equal keys to answers that mean the same: reflexive, symmetric and transitive because keys are compared."""

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """The key of the answer that `text` (a whole solution) gives, or None if none can be read."""
        ...


@register("marked", kind="equivalence", trade="lossless", page="techniques/equivalence.md")
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


@register("number", kind="equivalence", trade="lossless", page="techniques/equivalence.md")
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


@dataclass(frozen=True, slots=True)
class KeyedBy:
    """An equivalence made of a function, for example a task's own `answer` method."""

    function: Callable[[str, Problem], Hashable | None]

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """Whatever the function gives."""
        return self.function(text, problem)


def parse_number(text: str) -> Fraction | None:
    """Read a number exactly (``-1,234.50``, ``3/4``, ``\\frac{3}{4}``, ``2.5e3``, ``$7``, ``40%``); None for others."""
    if len(text) > LONGEST_NUMBER:
        return None
    text = text.strip().strip("$").strip().rstrip(".").replace("\u2212", "-").replace("\\%", "%").replace("\\$", "")
    text = _LATEX_FRACTION.sub(r"\1/\2", text)
    percent = text.endswith("%")
    numerator, slash, denominator = text.removesuffix("%").partition("/")
    value = _decimal(numerator.strip())
    if value is None or not slash:
        return None if value is None else value / (100 if percent else 1)
    divisor = _decimal(denominator.strip())
    if divisor is None or divisor == 0:
        return None
    return value / divisor / (100 if percent else 1)


def normalise(text: str) -> str | None:
    """Text without case, surrounding marks and runs of spaces; None if nothing is left."""
    return " ".join(text.strip(" \t\n.$*_`\"'").casefold().split()) or None


def _decimal(text: str) -> Fraction | None:
    sign = -1 if text.startswith("-") else 1
    text = text[1:] if text[:1] in ("-", "+") else text
    text = text.lstrip("$").strip()
    exponent = 0
    scientific = _EXPONENT.fullmatch(text)
    if scientific:
        text, exponent = scientific.group(1), int(scientific.group(2))
    if not text.isascii() or not _PLAIN.fullmatch(text):
        return None
    return sign * Fraction(text.replace(",", "").rstrip(".") or "0") * Fraction(10) ** exponent
