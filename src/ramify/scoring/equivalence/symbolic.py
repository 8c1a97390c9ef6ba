"""Mathematical answers: numbers, LaTeX and symbolic expressions, equations, sets, tuples and intervals.

Expressions are read and compared by sympy in a bounded worker process (`symbolic_worker`), for nothing can stop it from
inside: what would take long is refused by its form, and what slips through dies there at its limits.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ramify.errors import CapabilityError
from ramify.registry import register
from ramify.scoring.equivalence.base import PAGE
from ramify.scoring.equivalence.groups import group_key
from ramify.scoring.equivalence.numbers import parse_number
from ramify.scoring.equivalence.text import plain_key, unwrapped
from ramify.scoring.extraction import marked_answer
from ramify.scoring.problem import Problem

LATEX_PARSER = "latex2sympy2_extended"
LONGEST_EXPRESSION = 300  # characters
DEEPEST_EXPRESSION = 12  # brackets inside brackets
LARGEST_EXPONENT = 1000
MOST_EXPONENTS = 24
LONGEST_DIGITS = 60
WORKER_CPU_S = 4
WORKER_MEMORY_BYTES = 1 << 30
WORKER_WALL_S = 120.0  # only for a machine that has stopped: what an answer costs is bounded in CPU time

_WORKER = Path(__file__).with_name("symbolic_worker.py")
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(]?\s*[-+]?\s*([0-9]+)")
_TOWER = re.compile(r"(?:\^|\*\*)[^=,;]{0,20}?[0-9)}]\s*(?:\^|\*\*)\s*[{(]?\s*[0-9]")
_FACTORIAL = re.compile(r"([0-9]{3,}|[)}!])\s*!|\\(?:binom|prod|sum|int|lim)(?![A-Za-z])|factorial")
_UNIT = re.compile(r"\\(?:text|mathrm|mbox|textrm)\s?\{[^{}]*\}(?:\^\{?[23]\}?)?\s*\.?$")
_DEGREES = re.compile(r"\^\s?\{?\s?\\(?:circ|degree)\s?\}?|\u00b0")
_DEGREES_OF_ANGLE = re.compile(r"([0-9.]+)\s?(?:" + _DEGREES.pattern + ")")
_ANGLE = re.compile(r"(?:sin|cos|tan|cot|sec|csc)")
_DROPPED = re.compile(r"\\(?:left|right|displaystyle|limits|quad|qquad)(?![A-Za-z])|\\[,;:! ]|~|\$")
_SHORT_FRACTION = re.compile(r"\\frac\s?([0-9a-z])\s?([0-9a-z])")
_SHORT_ROOT = re.compile(r"\\sqrt\s?([0-9a-z])")
_MATHEMATICAL = re.compile(r"[0-9+*/^=()!|\\]|^-|^[a-zA-Z]$|^[xyz]{2,3}$|^(?:pi|sqrt|sin|cos|tan|log|ln|exp)\b")


@register("math", kind="equivalence", trade="lossless", needs=("the extra math",), page=PAGE)
@dataclass(frozen=True, slots=True)
class MathAnswer:
    """The marked answer as mathematics: an exact number, a group (see `GroupAnswer`), or an expression.

    Expressions are the same when they agree at fixed points to thirty digits:
    ``(x+1)^2`` and ``x^2+2x+1``, ``\\sqrt{8}`` and ``2\\sqrt{2}``. An equation ``x = 5`` is its right side; other
    equations are the same up to a factor. Units and degrees are left out. What cannot be read as mathematics is text.
    """

    def key(self, text: str, problem: Problem) -> Hashable | None:
        """A `Fraction`, nested tuples, or normalised text, or None.

        Raises:
            CapabilityError: the answer is LaTeX and its parser is not installed.
        """
        found = marked_answer(text)
        return None if found is None else group_key(found, expression_key)


def expression_key(text: str) -> Hashable | None:
    """The key of one expression: a `Fraction`, a tuple of its values, or normalised text."""
    number = parse_number(text)
    if number is not None:
        return number
    written = _tidied(text)
    number = parse_number(written)
    if number is not None:
        return number
    if not _MATHEMATICAL.search(written) or _is_too_much(written):
        return plain_key(text)
    latex = "\\" in written
    if latex and find_spec(LATEX_PARSER) is None:
        raise CapabilityError(
            f"the answer {text[:60]!r} is LaTeX, and {LATEX_PARSER} is not installed: pip install 'ramify[math]', or "
            "use the equivalence 'group', which reads no expressions"
        )
    key = _evaluated(written, latex)
    return plain_key(text) if key is None else key


def _tidied(text: str) -> str:
    """Without what dresses an expression: size commands, short forms, a unit behind it, degrees."""
    text = _DROPPED.sub(" ", text.replace("\\!", "")).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text.replace("{,}", ",").replace("\u2212", "-").strip()
    if _ANGLE.search(text):
        text = _DEGREES_OF_ANGLE.sub(r"(\1 \\pi/180)", text)
    text = _DEGREES.sub("", text).strip()
    without_unit = _UNIT.sub("", text).strip()
    text = without_unit if without_unit else unwrapped(text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text))
    return " ".join(text.rstrip(".").split())


def _is_too_much(text: str) -> bool:
    """Whether reading or evaluating it could take long: told from its form, so the same on every machine."""
    if len(text) > LONGEST_EXPRESSION or max(map(len, re.findall("[0-9]+", text)), default=0) > LONGEST_DIGITS:
        return True
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    exponents = [int(digits) for digits in _EXPONENT.findall(text)]
    return (
        deepest > DEEPEST_EXPRESSION
        or len(exponents) > MOST_EXPONENTS
        or max(exponents, default=0) > LARGEST_EXPONENT
        or _TOWER.search(text) is not None
        or _FACTORIAL.search(text) is not None
    )


@lru_cache(maxsize=8192)
def _evaluated(text: str, latex: bool) -> Hashable | None:
    reply = _the_worker.ask({"text": text, "latex": latex})
    return None if reply is None else _hashable(reply)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, list):
        if value and value[0] == "number":
            return Fraction(int(value[1]), int(value[2]))
        return tuple(_hashable(part) for part in value)
    assert isinstance(value, str | int)
    return value


class Worker:
    """One helper process, started at the first question, started anew after it died of one. Thread-safe."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, question: dict[str, Any]) -> Any:
        """The worker's answer; None if it has none or died of the question.

        Raises:
            CapabilityError: the worker cannot be started.
        """
        with self._lock:
            process = self._process if self._process is not None and self._process.poll() is None else self._start()
            watch = threading.Timer(WORKER_WALL_S, process.kill)
            watch.start()
            try:
                line = self._exchange(process, json.dumps(question).encode() + b"\n")
            finally:
                watch.cancel()
            if not line:
                self._end()
                return None
            return json.loads(line)["key"]

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _exchange(self, process: subprocess.Popen[bytes], line: bytes) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            return process.stdout.readline()
        except OSError:
            return b""

    def _start(self) -> subprocess.Popen[bytes]:
        self._end()
        command = [sys.executable, "-P", str(_WORKER), str(WORKER_CPU_S), str(WORKER_MEMORY_BYTES)]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
        if not self._exchange(process, b'{"text": "1", "latex": false}\n'):
            process.wait()
            raise CapabilityError("the worker for symbolic answers did not start: is sympy installed here?")
        self._process = process
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()


_the_worker = Worker()
