"""Reading the marked answer out of a solution: ``#### x``, ``\\boxed{x}``, an "Answer:" line, else the last number.

Text is a model's or a stranger's, so every pattern is linear in its length and only the end of a long text is read.
"""

from __future__ import annotations

import re

LONGEST_TEXT = 100_000  # characters read from the end: an answer stands there, and hostile text costs nothing
LONGEST_ANSWER = 2_000  # a longer "answer" is a run-away generation

_HASHES = "####"
_BOXED = re.compile(r"\\f?boxed\s?\{")
_ANSWER_LINE = re.compile(
    r"^[ \t>*_#-]{0,8}(?:the )?(?:final )?answer(?: is)?[ \t*_]{0,4}[:=]?[ \t*_]{0,4}(.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_NUMBER = re.compile(r"[-+\u2212]?[$]?(?:[0-9][0-9,]{0,40}(?:\.[0-9]{1,40})?|\.[0-9]{1,40})(?:/[0-9]{1,40})?%?")


def marked_answer(text: str) -> str | None:
    """The text of the answer that a solution marks, or None if it marks none.

    The first of these that is there, each at its last occurrence: ``#### x``, ``\\boxed{x}`` with balanced braces, a
    line such as ``Answer: x`` or ``The final answer is x``.
    """
    text = text[-LONGEST_TEXT:]
    for read in (_after_hashes, _last_boxed, _answer_line):
        found = read(text)
        if found:
            return found
    return None


def last_number(text: str) -> str | None:
    """The last number in a text, as it is written there, or None."""
    written = _NUMBER.findall(text[-LONGEST_TEXT:])
    return written[-1].rstrip(",") if written else None


def _after_hashes(text: str) -> str | None:
    for line in reversed(text.split("\n")):
        if line.lstrip().startswith(_HASHES):
            return _clean(line.lstrip()[len(_HASHES) :])
    return None


def _last_boxed(text: str) -> str | None:
    starts = [match.end() for match in _BOXED.finditer(text)]
    for start in reversed(starts[-16:]):  # an unbalanced box (a cut answer) is skipped for the one before it
        depth = 1
        for position in range(start, min(len(text), start + LONGEST_ANSWER)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return _clean(text[start:position])
    return None


def _answer_line(text: str) -> str | None:
    found = None
    for match in _ANSWER_LINE.finditer(text):
        found = _clean(match.group(1).strip().rstrip(".*_")) or found
    return found


def _clean(answer: str) -> str | None:
    answer = answer.strip()
    return answer if 0 < len(answer) <= LONGEST_ANSWER else None
