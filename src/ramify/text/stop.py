"""`StopStrings`: finds the first stop string in a text that arrives in pieces, and holds back what may become one.

The result does not depend on how the text is cut into pieces: the stop string that is complete first wins, and among
those complete at the same character the longest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopMatch:
    """Where a stop string ended a text.

    Attributes:
        stop: the string that was found.
        text_length: characters of the text that are kept.
        num_tokens: tokens whose text covers the kept characters.
    """

    stop: str
    text_length: int
    num_tokens: int


class StopStrings:
    """Searches one growing text.

    Args:
        stops: non-empty strings; none at all lets everything through.
        include_stop_str_in_output: keep the found string at the text's end.

    Attributes:
        match: None until a stop string is found; nothing comes out afterwards.
    """

    def __init__(self, stops: Sequence[str], include_stop_str_in_output: bool = False) -> None:
        if not all(stops):
            raise ValueError("an empty stop string would end every text at once")
        self.match: StopMatch | None = None
        self._stops = tuple(stops)
        self._include = include_stop_str_in_output
        self._held = ""  # the longest end of the text that a stop string starts with
        self._released = 0  # characters given out
        self._text_after: list[int] = []  # characters after each token

    def push(self, piece: str, num_tokens: int = 1, honour: bool = True) -> str:
        """Take the next piece of the text and return what may be shown now.

        Args:
            piece: text that came with the tokens (may be empty).
            num_tokens: how many tokens it came with.
            honour: False lets a stop string pass that is complete with this piece (before `min_tokens`).
        """
        if self.match is not None:
            return ""
        text = self._held + piece
        self._text_after += [self._released + len(text)] * num_tokens
        found = self._find(text, len(self._held)) if honour else None
        if found is not None:
            return self._end(text, *found)
        held = self._length_to_hold(text)
        shown, self._held = text[: len(text) - held], text[len(text) - held :]
        self._released += len(shown)
        return shown

    def flush(self) -> str:
        """What was held back, once the text has ended without it becoming a stop string."""
        rest, self._held = self._held, ""
        self._released += len(rest)
        return rest

    def copy(self) -> StopStrings:
        """For a fork of the sequence: goes on from here on its own."""
        twin = StopStrings(self._stops, self._include)
        twin.match, twin._held, twin._released = self.match, self._held, self._released
        twin._text_after = list(self._text_after)
        return twin

    def _find(self, text: str, old: int) -> tuple[int, str] | None:
        """Start and string of the match that ends first, after the `old` characters searched before."""
        found = []
        for stop in self._stops:
            start = text.find(stop, max(0, old - len(stop) + 1))
            if start >= 0:
                found.append((start + len(stop), start, stop))
        return min(found)[1:] if found else None

    def _end(self, text: str, start: int, stop: str) -> str:
        shown = text[: start + len(stop) if self._include else start]
        self._held = ""
        self._released += len(shown)
        num_tokens = bisect_left(self._text_after, self._released) + 1 if self._released else 0
        self.match = StopMatch(stop, self._released, num_tokens)
        return shown

    def _length_to_hold(self, text: str) -> int:
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
