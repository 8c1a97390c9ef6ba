"""Multiple choice: the letter, in the forms that models write it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ramify.errors import ConfigError
from ramify.registry import register
from ramify.scoring.equivalence.base import PAGE
from ramify.scoring.equivalence.text import plain_key, unwrapped
from ramify.scoring.extraction import LONGEST_TEXT, marked_answer
from ramify.scoring.problem import Problem

_LONGEST_OPTION = 200  # characters of a text that may be an option and nothing else
_DRESS = " \t\n$*_`\"'\u201c\u201d"
# an option's letter, alone, in brackets, or with a mark behind it and then the option's own text
_OPTION = re.compile(
    r"(?:option|choice|answer)?[\s:]{0,4}(?:[\(\[\{]\s?([A-Za-z])\s?[\)\]\}]|([A-Za-z])(?![A-Za-z0-9']))\s{0,2}(.{0,200})",
    re.IGNORECASE | re.DOTALL,
)
_SAID = re.compile(
    r"\b(?:answer|option|choice|choose|pick|select)(?:\s+(?:is|would be|must be))?"
    r"[\s:*_(\[\"']{0,6}([A-Z])(?![A-Za-z0-9'])",
    re.IGNORECASE,
)
_LINE = re.compile(r"^[\s*_(\[]{0,6}([A-Z])[\s*_)\].:]{0,6}$", re.MULTILINE)


@register("choice", kind="equivalence", trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """The letter of the chosen option: ``B``, ``(b)``, ``B) 12``, ``Option B.``, ``\\boxed{\\text{B}}``.

    Where ``problem.metadata["choices"]`` lists the options' texts, an answer that is one of them counts as its letter.

    Attributes:
        letters: the letters of the options, as capitals.
    """

    letters: str = "ABCDE"

    def __post_init__(self) -> None:
        fine = self.letters.isascii() and self.letters.isalpha() and self.letters.isupper()
        if not fine or len(set(self.letters)) != len(self.letters):
            raise ConfigError(f"letters={self.letters!r} does not work: give different capital letters, such as ABCD")

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """A capital letter or None."""
        text = text[-LONGEST_TEXT:]
        choices = problem.metadata.get("choices", ())
        found = marked_answer(text)
        if found is not None:
            return self._letter(found, choices)
        said = self._said(text)
        return said if said is not None or len(text) > _LONGEST_OPTION else self._letter(text, choices)

    def _letter(self, answer: str, choices: Sequence[object]) -> str | None:
        answer = unwrapped(answer).strip(_DRESS)
        wanted = plain_key(answer)
        texts = [plain_key(str(choice)) for choice in choices]
        if wanted is not None and texts.count(wanted) == 1 and texts.index(wanted) < len(self.letters):
            return self.letters[texts.index(wanted)]
        match = _OPTION.fullmatch(answer)
        if match is None:
            return None
        bracketed, bare, rest = match.groups()
        if rest and bare and rest[0] not in ".):,;-\u2013":
            return None  # "A dog" begins with an article
        return self._known((bracketed or bare).upper())

    def _said(self, text: str) -> str | None:
        """The last letter that a text names as its answer, or that stands alone on a line."""
        last = None
        for pattern in (_SAID, _LINE):
            for match in pattern.finditer(text):
                letter = match.group(1)
                if letter.isupper() and self._known(letter) and (last is None or match.start() > last[0]):
                    last = (match.start(), letter)
        return None if last is None else last[1]

    def _known(self, letter: str) -> str | None:
        return letter if letter in self.letters else None
