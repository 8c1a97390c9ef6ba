"""`Cursor`: what a family's parser reads from. One character of look-ahead, taken only where it is needed, so that a
call is known with its last character; every character is read once."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ramify.text.tool_calls.base import Arguments, Begun, Ended, Event, Malformed, Reading, Tool

MAX_DEPTH = 64
"""Nested brackets in the arguments of a call."""
MAX_NAME = 256
"""Characters of anything that stands where a name should."""
_CLOSER = {"{": "}", "[": "]"}
_OUTSIDE_STRINGS = frozenset('{}[]:,"+-.0123456789eEtrufalsn \t\r\n')


class Cursor:
    """One region of calls in an answer.

    Args:
        tools: the functions that may be called.

    Attributes:
        held: a character that was looked at and not taken.
        events: what is known and was not handed on.
        closing: the last call is whole; if the text ends now, nothing is missing but marks.
    """

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self.tools = tools
        self.held: str | None = None
        self.events: list[Event] = []
        self.closing = False

    def require(self, name: object) -> None:
        """Raises `Malformed` for a function that there is not."""
        if not isinstance(name, str) or name not in self.tools:
            raise Malformed(f"no function is called {name!r}")

    def begin(self, name: Any) -> None:
        """A call begins. Raises `Malformed` for a function that there is not."""
        self.require(name)
        self.closing = False
        self.events.append(Begun(name))

    def arguments(self, text: str) -> None:
        """More of the arguments."""
        self.events.append(Arguments(text))

    def end(self) -> None:
        """The call is whole."""
        self.events.append(Ended())
        self.closing = True

    def call(self, name: object, arguments: Any) -> None:
        """A whole call at once. Raises `Malformed` for arguments that are no object."""
        if not isinstance(arguments, dict):
            raise Malformed("the arguments are no object")
        try:
            text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise Malformed("the arguments are no JSON") from error
        self.begin(name)
        self.arguments(_encodable(text))
        self.end()

    def peek(self) -> Reading[str]:
        """The next character, which stays."""
        if self.held is None:
            self.held = yield
        return self.held

    def take(self) -> Reading[str]:
        """The next character, which is read."""
        char = yield from self.peek()
        self.held = None
        return char

    def literal(self, text: str) -> Reading[None]:
        """Read exactly this text."""
        for wanted in text:
            if (yield from self.peek()) != wanted:
                raise Malformed(f"{text!r} should stand here")
            self.held = None

    def either(self, texts: Sequence[str]) -> Reading[str]:
        """Read exactly one of some texts, none of which is the start of another."""
        read = ""
        while read not in texts:
            char = yield from self.peek()
            if not any(text.startswith(read + char) for text in texts):
                raise Malformed(f"one of {texts!r} should stand here")
            read += char
            self.held = None
        return read

    def one_of(self, chars: str) -> Reading[str]:
        """Read one of these characters."""
        char = yield from self.peek()
        if char not in chars:
            raise Malformed(f"one of {chars!r} should stand here")
        self.held = None
        return char

    def space(self) -> Reading[str]:
        """Skip white space; the character behind it, which stays."""
        while (char := (yield from self.peek())).isspace():
            self.held = None
        return char

    def until(self, end: str, most: int | None = None) -> Reading[str]:
        """Read up to and past a text; what stood before it."""
        parts: list[str] = []
        tail = ""
        while True:
            char = yield from self.take()
            parts.append(char)
            tail = (tail + char)[-len(end) :]
            if tail == end:
                return "".join(parts)[: -len(end)]
            if most is not None and len(parts) > most + len(end):
                raise Malformed(f"{end!r} should stand here")

    def word(self, allowed: Callable[[str], bool]) -> Reading[str]:
        """Read characters of a kind, at least one and at most `MAX_NAME`."""
        parts: list[str] = []
        while allowed((yield from self.peek())):
            parts.append((yield from self.take()))
            if len(parts) > MAX_NAME:
                raise Malformed("this is too long for a name")
        if not parts:
            raise Malformed("a name should stand here")
        return "".join(parts)

    def json_value(self, give: Callable[[str], None] | None = None) -> Reading[tuple[str, Any]]:
        """One JSON value: its text, and what it says. Raw control characters in strings are written as JSON asks.

        Args:
            give: is handed the text as it comes, for objects.
        """
        first = yield from self.space()
        if first in _CLOSER:
            text = yield from self._nested(give)
        elif first == '"':
            text = yield from self._string()
        else:
            text = yield from self.word(lambda char: char in _OUTSIDE_STRINGS and char not in ',]}: \t\r\n"{[')
        return text, _loads(text)

    def _string(self, give: Callable[[str], None] | None = None) -> Reading[str]:
        parts: list[str] = []
        escaped = False
        char = yield from self.one_of('"')
        while True:
            text = _escape(char)
            parts.append(text)
            if give is not None:
                give(text)
            if char == '"' and not escaped and len(parts) > 1:
                return "".join(parts)
            escaped = char == "\\" and not escaped
            char = yield from self.take()

    def _nested(self, give: Callable[[str], None] | None) -> Reading[str]:
        """An object or array up to its end; whether it is one in every detail is checked there."""
        parts: list[str] = []
        closers: list[str] = []
        while True:
            char = yield from self.peek()
            if char == '"':
                parts.append((yield from self._string(give)))
                continue
            if char not in _OUTSIDE_STRINGS:
                raise Malformed("this is no JSON")
            if char in _CLOSER:
                closers.append(_CLOSER[char])
                if len(closers) > MAX_DEPTH:
                    raise Malformed(f"more than {MAX_DEPTH} brackets are nested")
            elif char in "}]" and closers.pop() != char:
                raise Malformed("brackets do not match")
            self.held = None
            parts.append(char)
            if give is not None:
                give(char)
            if not closers:
                return "".join(parts)


def read_call_object(
    cursor: Cursor,
    names: Collection[str] = ("name",),
    arguments: Collection[str] = ("arguments", "parameters"),
    *,
    opened: bool = False,
) -> Reading[None]:
    """A call as a JSON object with the name and the arguments, in either order; other entries are skipped.

    Args:
        names, arguments: what the two entries may be called.
        opened: its opening brace is read already.
    """
    if not opened:
        yield from cursor.space()
        yield from cursor.literal("{")
    cursor.closing = False
    name: Any = None
    pending: str | None = None
    given = False
    while (yield from cursor.space()) != "}":
        _, key = yield from cursor.json_value()
        yield from cursor.space()
        yield from cursor.literal(":")
        if key in names:
            _, name = yield from cursor.json_value()
            cursor.require(name)
        elif key in arguments and not given:
            given = True
            pending = yield from _read_arguments(cursor, name)
        else:
            yield from cursor.json_value()
        if (yield from cursor.space()) != "}":
            yield from cursor.literal(",")
    yield from cursor.literal("}")
    if pending is not None or not given:
        cursor.begin(name)
        cursor.arguments("{}" if pending is None else pending)
    cursor.end()


def read_call_list(
    cursor: Cursor,
    names: Collection[str] = ("name",),
    arguments: Collection[str] = ("arguments", "parameters"),
    *,
    opened: bool = False,
) -> Reading[None]:
    """Calls as a JSON array of such objects, one at least."""
    if not opened:
        yield from cursor.space()
        yield from cursor.literal("[")
    while True:
        yield from read_call_object(cursor, names, arguments)
        yield from cursor.space()
        if (yield from cursor.one_of(",]")) == "]":
            return


def read_named_call(cursor: Cursor, name: str) -> Reading[None]:
    """The arguments of a call whose name is read already, as a JSON object."""
    if (yield from cursor.space()) != "{":
        raise Malformed("the arguments should stand here")
    cursor.begin(name)
    yield from cursor.json_value(cursor.arguments)
    cursor.end()


def _read_arguments(cursor: Cursor, name: Any) -> Reading[str | None]:
    """The arguments, handed on as they come where the name is known; otherwise their text."""
    if (yield from cursor.space()) == "{" and name is not None:
        cursor.begin(name)
        yield from cursor.json_value(cursor.arguments)
        return None
    text, value = yield from cursor.json_value()
    if isinstance(value, str):  # some models write the object as a string
        text, value = _encodable(value), _loads(value)
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise Malformed("the arguments are no object")
    return text


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if char < " " else char


def _encodable(text: str) -> str:
    """JSON whose lone surrogates, which no encoding of text can hold, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed("this is no JSON") from error


def _no_constant(text: str) -> Any:
    raise Malformed(f"{text} is no JSON")
