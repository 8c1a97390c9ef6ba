"""Answers as plain text: equal without case, spacing and the marks that only dress them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass

from ramify.registry import register
from ramify.scoring.equivalence.base import PAGE
from ramify.scoring.extraction import LONGEST_TEXT, marked_answer
from ramify.scoring.problem import Problem

_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s?\{([^{}]*)\}")


@register("text", kind="equivalence", trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class TextAnswer:
    """The marked answer, or the last line that is not empty, as text without case, spacing and dress.

    Attributes:
        whole: take the whole text and look for no mark.
    """

    whole: bool = False

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """Normalised text or None."""
        text = text[-LONGEST_TEXT:]
        if self.whole:
            return plain_key(text)
        found = marked_answer(text)
        return plain_key(found if found is not None else text.rstrip().rpartition("\n")[2])


def plain_key(text: str) -> str | None:
    """Normalised text with compatible characters unified (full-width letters, ligatures) and LaTeX wrappers off."""
    return normalise(unicodedata.normalize("NFKC", unwrapped(text)))


def unwrapped(text: str) -> str:
    """``\\text{Paris}`` without its wrapper; several levels of them."""
    for _ in range(4):
        text, changed = _WRAPPED.subn(r"\1", text)
        if not changed:
            break
    return text


def normalise(text: str) -> str | None:
    """Text without case, surrounding marks and runs of spaces; None if nothing is left."""
    return " ".join(text.strip(" \t\n.$*_`\"'").casefold().split()) or None
