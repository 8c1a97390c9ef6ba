"""Reading the replies of Archon's components: pure functions of text; what is not there is never made up.

A model may leave out candidates, name one twice, refuse, or say nothing: each function says what it could read, and its
caller what is done about the rest.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SECTION = re.compile(r"^[ \t#*>-]*\[(\d+)\][ \t:.*]*", re.MULTILINE)
_CHAIN = re.compile(r"(?<!\d)\d+\]?(?:\s*>\s*\[?\d+\]?)+")
_LIST = re.compile(r"\[\s*\d+(?:\s*,\s*\d+)+\s*\]")
_BRACKETED = re.compile(r"\[(\d+)\]")
_VERDICT = re.compile(r"\[\s*(correct|incorrect)\s*\]", re.IGNORECASE)
_OUTCOME = re.compile(r"\[(\d+)\]\W*(pass|fail)(?:ed|es|s)?\b", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*\u2022])\s+(\S.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)


def read_sections(text: str, count: int) -> list[str] | None:
    """Texts behind ``[1]`` to ``[count]`` at the beginnings of lines; None unless each is there once and not empty."""
    marks = list(_SECTION.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    found = [(_number(mark[1]), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    if sorted(number for number, _ in found) != list(range(1, count + 1)) or not all(body for _, body in found):
        return None
    return [body for _, body in sorted(found)]


def read_ranking(text: str, count: int) -> list[int]:
    """Places from 0, best first, of the numbers 1 to `count` that a reply ranks; each once, others ignored.

    It is the last chain (``[2] > [1]``) or list of numbers; failing that, the numbers in brackets of the last line that
    has any. Numbers elsewhere rank nothing.
    """
    chains = [*_CHAIN.finditer(text), *_LIST.finditer(text)]
    if chains:
        said = max(chains, key=lambda match: match.end())[0]
        numbers = re.findall(r"\d+", said)
    else:
        lines = [found for line in text.splitlines() if (found := _BRACKETED.findall(line))]
        numbers = lines[-1] if lines else []
    places = [_number(number) - 1 for number in numbers]
    return list(dict.fromkeys(place for place in places if 0 <= place < count))


def whole_ranking(ranked: list[int], count: int) -> list[int]:
    """A permutation: what was ranked, and behind it what was left out, in its order."""
    return [*ranked, *(place for place in range(count) if place not in ranked)]


def read_verdict(text: str) -> bool | None:
    """The last ``[Correct]`` or ``[Incorrect]``; None if there is neither."""
    found = _VERDICT.findall(text)
    return found[-1].lower() == "correct" if found else None


def read_outcomes(text: str, count: int) -> list[bool | None]:
    """Whether each of the tests 1 to `count` was passed; the last word on a test counts, None if there is none."""
    outcomes: list[bool | None] = [None] * count
    for number, word in _OUTCOME.findall(text):
        if 1 <= _number(number) <= count:
            outcomes[_number(number) - 1] = word.lower() == "pass"
    return outcomes


def read_tests(text: str) -> tuple[list[str], bool]:
    """Statements from a JSON list of texts, or from numbered lines; each once. And whether it was such a list."""
    listed = _json_texts(text)
    tests = listed if listed is not None else [line.strip() for line in _ITEM.findall(text)]
    return list(dict.fromkeys(tests)), listed is not None


def read_code_tests(text: str) -> list[str]:
    """The fenced blocks of Python, each once; those that are empty left out."""
    return list(dict.fromkeys(block.strip("\n") for block in _BLOCK.findall(text) if block.strip()))


def _number(digits: str) -> int:
    """A candidate's number; 0, which is no candidate's, for a run of digits too long to be one."""
    return int(digits) if len(digits) <= 6 else 0


def _json_texts(text: str) -> list[str] | None:
    start, end = text.find("["), text.rfind("]")
    if start < 0 or end < start:
        return None
    try:
        read: Any = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, list) or not all(isinstance(item, str) for item in read):
        return None
    return [item.strip() for item in read if item.strip()]
