"""Text as the value of an option: in a spec its line ends, commas and outer spaces are written with a backslash."""

from __future__ import annotations

import re
from typing import Self

_ESCAPED = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r"}
_WRITTEN = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", ",": "\\x2c"}


class SpecText(str):
    """A `str` that reads itself from a spec and writes itself back: ``\\n``, ``\\t``, ``\\x2c`` (a comma), ``\\\\``.

    ``SpecText(text)`` reads the written form; ``SpecText.of(text)`` takes text as it is. `format` (and so `describe`)
    gives the written form; in all else it is the text itself.
    """

    __slots__ = ()

    def __new__(cls, written: str = "") -> Self:
        return super().__new__(cls, unescape(written))

    @classmethod
    def of(cls, text: str) -> Self:
        """This text, taken literally."""
        return super().__new__(cls, text)

    def __format__(self, form: str) -> str:
        return escape(self)


def unescape(written: str) -> str:
    """The text that a written form stands for."""

    def meant(match: re.Match[str]) -> str:
        code = match.group(1)
        return chr(int(code[1:], 16)) if len(code) > 1 else _NAMED.get(code, code)

    return _ESCAPED.sub(meant, written)


def escape(text: str) -> str:
    """The written form of a text, without anything that a spec would take for its own."""
    inner = range(len(text) - len(text.lstrip()), len(text.rstrip()))
    return "".join(
        _WRITTEN.get(character) or (character if place in inner else _code(character))
        for place, character in enumerate(text)
    )


def _code(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
