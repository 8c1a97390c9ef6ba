"""`ReasoningParser`: splits a growing answer into what was thought and what is said, however it is cut into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from ramify.text.marks import held_back
from ramify.text.reasoning.formats import ReasoningFormat
from ramify.text.tokenizer import Tokenizer


class _Place(Enum):
    START = "nothing but white space came"
    THOUGHT = "inside the thought"
    BETWEEN = "the thought ended, nothing but white space came since"
    ANSWER = "inside the answer"


class ReasoningParser:
    """One answer. White space around the thought belongs to neither side.

    Args:
        family: its marks.
        inside: the prompt has opened the thought already.

    Attributes:
        thought: whether the answer has a thought, or had its mark in the prompt.
    """

    def __init__(self, family: ReasoningFormat, inside: bool = False) -> None:
        self._family = family
        self._place = _Place.THOUGHT if inside else _Place.START
        self._began = False  # something of the thought was given: white space before it is not
        self._held = ""
        self.thought = inside

    def push(self, text: str) -> tuple[str, str]:
        """The next piece of the answer; what became certain of (thought, answer)."""
        thought, answer = [], []
        self._held += text
        before = None
        while before is not self._place:
            before = self._place
            if self._place is _Place.START:
                self._open()
            if self._place is _Place.THOUGHT:
                thought.append(self._think())
            if self._place is _Place.BETWEEN:
                self._held = self._held.lstrip()
                self._place = _Place.ANSWER if self._held else _Place.BETWEEN
            if self._place is _Place.ANSWER:
                answer.append(self._held)
                self._held = ""
        return "".join(thought), "".join(answer)

    def finish(self) -> tuple[str, str]:
        """The text has ended: what was held back, on the side where it stands."""
        rest, self._held = self._held, ""
        if self._place is _Place.THOUGHT:
            return rest.rstrip() if self._began else rest.strip(), ""
        return "", "" if self._place is _Place.BETWEEN else rest

    def _open(self) -> None:
        """Decide how the answer starts, once that is certain."""
        text = self._held.lstrip()
        for start in self._family.starts:
            if text.startswith(start):
                self._held, self._place, self.thought = text[len(start) :], _Place.THOUGHT, True
                return
        if text and not any(start.startswith(text) for start in self._family.starts):
            self._place = _Place.ANSWER

    def _think(self) -> str:
        """What is certain of the thought; white space at its end may stand before the mark."""
        text = self._held if self._began else self._held.lstrip()
        found = [(text.find(end), end) for end in self._family.ends if end in text]
        if found:
            place, end = min(found)
            self._held, self._place = text[place + len(end) :], _Place.BETWEEN
            return text[:place].rstrip()
        certain = text[: len(text) - held_back(text, self._family.ends)].rstrip()
        self._held = text[len(certain) :]
        self._began = self._began or bool(certain)
        return certain


def count_reasoning_tokens(
    tokenizer: Tokenizer, token_ids: Sequence[int], family: ReasoningFormat, inside: bool
) -> int:
    """How many tokens of an answer were thought, the mark at the thought's end included.

    Args:
        tokenizer: of the model.
        token_ids: the whole answer.
        family: its marks.
        inside: the prompt opened the thought.
    """
    text = tokenizer.decode(token_ids, skip_special_tokens=False)
    if not inside and not text.lstrip().startswith(family.starts):
        return 0
    if not any(end in text for end in family.ends):
        return len(token_ids)
    low, high = 1, len(token_ids)
    while low < high:  # the shortest beginning that holds the end of the thought
        middle = (low + high) // 2
        start = tokenizer.decode(token_ids[:middle], skip_special_tokens=False)
        low, high = (low, middle) if any(end in start for end in family.ends) else (middle + 1, high)
    return low
