"""Sets, tuples, intervals and unions of them: read at the top level, each element keyed by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ramify.registry import register
from ramify.scoring.equivalence.base import PAGE
from ramify.scoring.equivalence.numbers import parse_number
from ramify.scoring.equivalence.text import plain_key
from ramify.scoring.extraction import marked_answer
from ramify.scoring.problem import Problem

ElementKey = Callable[[str], Hashable | None]

DEEPEST = 8  # groups inside groups
MOST_ELEMENTS = 200
_OPENING, _CLOSING = "([{", ")]}"
_SPACES = re.compile(r"\\(?:left|right|displaystyle|quad|qquad|bigl|bigr|Big|big)(?![A-Za-z])|\\[,;! ]|~|\$")
_UNION = re.compile(r"\\cup(?![A-Za-z])|\u222a|\bU\b")
_INFINITY = re.compile(r"^([-+\u2212]?)\s?(?:\\infty|\u221e|oo|inf(?:inity)?)$", re.IGNORECASE)
_AND = re.compile(r"(?:,\s*)?\s(?:and|or|\\text\{\s*(?:and|or)\s*\})\s", re.IGNORECASE)
_MEMBER = re.compile(r"^[a-z]\s*(?:\\in(?![A-Za-z])|\u2208)\s*")


@register("group", kind="equivalence", trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class GroupAnswer:
    """The marked answer as a set, tuple, interval or union of numbers and texts; a single one as itself.

    ``{1, 2}`` and the bare list ``2, 1`` are one set. ``(1, 2)`` is one key, be it meant as a pair or as an interval;
    its order and its brackets count.
    """

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """A nested tuple, a `Fraction`, normalised text, or None."""
        found = marked_answer(text)
        return None if found is None else group_key(found, simple_key)


def simple_key(text: str) -> Hashable | None:
    """An exact number where it is one, else text."""
    number = parse_number(text)
    return number if number is not None else plain_key(text)


def group_key(text: str, element: ElementKey, depth: int = 0) -> Hashable | None:
    """The key of an answer that may be a group; `element` keys what is none.

    None where an element has no key. A text that is too deep or too long is one element.
    """
    text = _tidy(text)
    if parse_number(text) is not None or depth > DEEPEST:
        return element(text)
    infinity = _INFINITY.match(text)
    if infinity:
        return ("infinity", "-" if infinity.group(1) in ("-", "\u2212") else "+")
    parts = _split(text, _UNION)
    if parts is not None and len(parts) > 1:
        return _gather("union", parts, element, depth)
    inside, brackets = _unbracketed(text)
    if brackets is not None:
        return _bracketed(text, inside, brackets, element, depth)
    parts = _split(_AND.sub(", ", text), re.compile(","))
    if parts is not None and len(parts) > 1 and all(parts):
        return _gather("set", parts, element, depth)
    return element(text)


def _bracketed(text: str, inside: str, brackets: str, element: ElementKey, depth: int) -> Hashable | None:
    parts = _split(inside, re.compile(","))
    if parts is None:
        return element(text)
    if brackets == "{}":
        return _gather("set", [part for part in parts if part], element, depth)
    if len(parts) == 1:
        return group_key(inside, element, depth + 1) if brackets == "()" else element(text)
    keys = [group_key(part, element, depth + 1) for part in parts]
    return None if None in keys else (brackets, *keys)


def _gather(kind: str, parts: list[str], element: ElementKey, depth: int) -> Hashable | None:
    keys = [group_key(part, element, depth + 1) for part in parts]
    return None if None in keys else (kind, frozenset(keys))


def _tidy(text: str) -> str:
    text = _SPACES.sub(" ", text).replace("\\{", "{").replace("\\}", "}").replace("{,}", ",").strip()
    return _MEMBER.sub("", text.replace("\\lbrace", "{").replace("\\rbrace", "}")).strip()


def _unbracketed(text: str) -> tuple[str, str | None]:
    """What stands inside brackets that enclose the whole text, and the two brackets."""
    if len(text) < 2 or text[0] not in _OPENING or text[-1] not in _CLOSING:
        return text, None
    depth = 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            whole = place == len(text) - 1
            mixed = (text[0] == "{") != (text[-1] == "}")
            return (text[1:-1].strip(), text[0] + text[-1]) if whole and not mixed else (text, None)
    return text, None


def _split(text: str, separator: re.Pattern[str]) -> list[str] | None:
    """The parts between separators outside brackets; None if brackets do not balance or there are too many parts."""
    marks = {match.start(): match.end() for match in separator.finditer(text)}
    parts, start, depth = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            return None
        if depth == 0 and place in marks:
            parts.append(text[start:place].strip())
            start = marks[place]
    parts.append(text[start:].strip())
    return parts if depth == 0 and len(parts) <= MOST_ELEMENTS else None
