"""`ToolCallParser`: splits a growing answer into text and calls, however it is cut into pieces, each character once.

What is no call stays text: nothing is lost and nothing is an error. White space around calls belongs to the text that
goes on behind them, if any does.
"""

from __future__ import annotations

from collections.abc import Iterable

from ramify.text.marks import held_back
from ramify.text.tool_calls.base import Ended, Event, Malformed, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import Cursor

MAX_REGION = 4_000_000
"""Characters of one region of calls; beyond, it is text. More than any context holds."""


class ToolCallParser:
    """One answer.

    Args:
        family: how calls are written.
        tools: the functions that may be called.
        live: hand on a call while it is written. Only for answers that a grammar holds to the family's syntax: what
            turns out malformed after it was handed on cannot be taken back. Without it a call comes when it is whole.
    """

    def __init__(self, family: ToolFormat, tools: Iterable[Tool], live: bool = False) -> None:
        self._family = family
        self._tools = {tool.name: tool for tool in tools}
        self._live = live
        self._held = ""  # text that is not certain to be text
        self._at_start = True
        self._after_call = False
        self._said = False
        self._gap = ""  # white space around calls, for the case that text follows
        self._cursor: Cursor | None = None
        self._reading: Reading[None] | None = None
        self._space = ""  # before the opener of the region
        self._raw: list[str] = []  # the region, as far as it was not handed on as calls
        self._pending: list[Event] = []
        self._unfinished = False  # the beginning of a call was handed on, not its end

    def push(self, text: str) -> list[str | Event]:
        """The next piece of the answer: text and events of calls, in order."""
        found: list[str | Event] = []
        while text:
            text = self._search(text, found) if self._reading is None else self._read(text, found)
        return found

    def finish(self) -> list[str | Event]:
        """The text has ended: what was held back."""
        found: list[str | Event] = []
        if self._reading is not None:
            self._end_of_region(found)
        rest, self._held = self._held, ""
        if rest.strip() or not self._after_call:
            self._say(rest, found)
        return found

    def _search(self, text: str, found: list[str | Event]) -> str:
        """Look for an opener; what follows it."""
        text, self._held = self._held + text, ""
        if self._after_call:
            text = self._skip_gap(text)
        openers = self._family.openers
        if self._at_start:
            started = self._start(text, found)
            if started is not None:
                return started
        matches = [(text.find(opener), -len(opener), opener) for opener in openers if opener in text]
        if matches:
            place, _, opener = min(matches)
            before = text[:place].rstrip()
            self._say(before, found)
            self._open(opener, text[len(before) : place])
            return text[place + len(opener) :]
        certain = text[: len(text) - held_back(text, openers)].rstrip()
        self._held = text[len(certain) :]
        self._say(certain, found)
        return ""

    def _start(self, text: str, found: list[str | Event]) -> str | None:
        """At the answer's start: what follows an opener; nothing while it is open whether one stands there."""
        stripped = text.lstrip()
        for opener in sorted(self._family.start_openers, key=len, reverse=True):
            if stripped.startswith(opener):
                self._open(opener, text[: len(text) - len(stripped)])
                return stripped[len(opener) :]
        if not stripped or any(opener.startswith(stripped) for opener in self._family.start_openers):
            self._held = text
            return ""
        return None

    def _skip_gap(self, text: str) -> str:
        rest = text.lstrip()
        self._gap += text[: len(text) - len(rest)]
        return rest

    def _say(self, text: str, found: list[str | Event]) -> None:
        if text:
            found.append(self._gap + text if self._said else text)
            self._at_start = self._after_call = False
            self._said, self._gap = True, ""

    def _open(self, opener: str, space: str) -> None:
        self._at_start = False
        self._cursor = Cursor(self._tools)
        self._reading = self._family.read(self._cursor, opener)
        self._space = space
        self._raw = [space, opener]
        next(self._reading)

    def _read(self, text: str, found: list[str | Event]) -> str:
        """Feed a region character by character; what stands after it."""
        assert self._reading is not None
        assert self._cursor is not None
        for place, char in enumerate(text):
            self._raw.append(char)
            try:
                self._reading.send(char)
                if len(self._raw) > MAX_REGION:
                    raise Malformed("the call does not end")
            except StopIteration:
                return self._leave(text, place, found, whole=True)
            except Malformed:
                return self._leave(text, place, found, whole=False)
            if self._cursor.events:
                self._hand_on(found)
        return ""

    def _leave(self, text: str, place: int, found: list[str | Event], whole: bool) -> str:
        """The region is over: what was not read of it goes on as text."""
        assert self._cursor is not None
        self._hand_on(found)
        unread = self._cursor.held is not None
        if unread:
            self._raw.pop()
        if not whole:
            self._back_to_text(found)
        self._reading = self._cursor = None
        self._raw, self._pending = [], []
        return text[place if unread else place + 1 :]

    def _hand_on(self, found: list[str | Event]) -> None:
        assert self._cursor is not None
        for event in self._cursor.events:
            self._pending.append(event)
            if self._live or isinstance(event, Ended):
                found += self._pending
                self._pending = []
                self._raw = [] if self._cursor.held is None else [self._cursor.held]
                self._gap, self._space = self._gap + self._space, ""
                self._after_call = True
                self._unfinished = not isinstance(event, Ended)
        self._cursor.events.clear()

    def _back_to_text(self, found: list[str | Event]) -> None:
        raw = "".join(self._raw)
        self._say(self._skip_gap(raw) if self._after_call else raw, found)

    def _end_of_region(self, found: list[str | Event]) -> None:
        assert self._cursor is not None
        self._hand_on(found)
        if not (self._cursor.closing or self._unfinished):
            self._back_to_text(found)
        self._reading = self._cursor = None
