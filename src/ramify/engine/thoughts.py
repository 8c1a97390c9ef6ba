"""Where the thought at the start of an answer begins and ends, as the answer grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ramify.sampling import ThinkingMarks, TokenIds


@dataclass(slots=True)
class Thoughts:
    """Follows one sequence; a function of the tokens it has read.

    Attributes:
        marks: of the model's thoughts.
        start: position of the answer's first token.
        opened: position behind the mark that opened the thought; None if there is none so far.
        closed: position behind the mark that closed it.
        answers: the answer began without a thought.
    """

    marks: ThinkingMarks
    start: int
    opened: int | None = None
    closed: int | None = None
    answers: bool = False
    _searched: int = 0  # no closing mark begins before it

    def __post_init__(self) -> None:
        if self.marks.inside and self.opened is None:
            self.opened = self.start

    @property
    def open(self) -> bool:
        """Whether the sequence is inside the thought."""
        return self.opened is not None and self.closed is None

    @property
    def answer_start(self) -> int:
        """Position of the first token that is no thought."""
        return self.start if self.closed is None else self.closed

    def copy(self) -> Thoughts:
        """The same for a fork."""
        return replace(self)

    def read(self, tokens: Sequence[int]) -> None:
        """Take notice of the tokens that are new.

        Args:
            tokens: all of the sequence.
        """
        if self.opened is None and not self.answers:
            begun = tuple(tokens[self.start : self.start + max(map(len, self.marks.starts), default=0)])
            whole = [mark for mark in self.marks.starts if begun[: len(mark)] == mark]
            if whole:
                self.opened = self.start + len(whole[0])
            else:
                self.answers = not self.openings(tokens)
        if self.opened is not None and self.closed is None:
            self.closed = self._find_end(tokens, self.opened)

    def openings(self, tokens: Sequence[int]) -> TokenIds:
        """Ids by which the next token may open a thought, or go on to."""
        if self.opened is not None or self.answers:
            return ()
        begun = tuple(tokens[self.start :])
        length = len(begun)
        return tuple(
            {mark[length]: None for mark in self.marks.starts if mark[:length] == begun and len(mark) > length}
        )

    def next_of_end(self, tokens: Sequence[int]) -> int:
        """The id with which an open thought is brought to its end."""
        assert self.opened is not None
        end = self.marks.ends[0]
        thought = tuple(tokens[max(self.opened, len(tokens) - len(end) + 1) :])
        for length in range(min(len(thought), len(end) - 1), 0, -1):
            if thought[-length:] == end[:length]:
                return end[length]
        return end[0]

    def _find_end(self, tokens: Sequence[int], opened: int) -> int | None:
        for place in range(max(opened, self._searched), len(tokens)):
            for mark in self.marks.ends:
                if tokens[place] == mark[0] and tuple(tokens[place : place + len(mark)]) == mark:
                    return place + len(mark)
        self._searched = max(opened, len(tokens) - max(map(len, self.marks.ends)) + 1)
        return None
