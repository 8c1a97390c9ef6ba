"""A task made of any JSONL file with a question and an answer on each line, under whatever field names."""

from __future__ import annotations

import os
import random
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.errors import TaskError
from ramify.evals.jsonl import parse_object
from ramify.scoring.equivalence import Equivalence, MarkedAnswer
from ramify.scoring.extraction import marked_answer
from ramify.scoring.problem import Problem

SHOWN_BAD_LINES = 5


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be used: its number, from 1, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


class JsonlTask:
    """Questions and reference answers from a file; an answer is right if it has the reference's key.

    Args:
        path: the file; blank lines are passed over.
        question, answer: the fields' names. A question is text or a list of chat messages; an answer is text (whose
            marked part counts, as in GSM8K's ``#### 42``) or a number.
        id_field: names a problem; where a line has none, its number does.
        equivalence: reads an answer out of a solution; default: the marked answer, else the last number.
        skip_bad: leave lines out that cannot be read (they are in `bad_lines`) instead of raising.

    Raises:
        TaskError: no such file, no usable line, or bad lines, each by its number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        question: str = "question",
        answer: str = "answer",
        id_field: str = "id",
        equivalence: Equivalence | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self.bad_lines: list[BadLine] = []
        self._fields = (question, answer, id_field)
        self._equivalence = equivalence or MarkedAnswer()
        self._problems: dict[str, Problem] = {}
        self._keys: dict[str, Hashable] = {}
        if not self.path.is_file():
            raise TaskError(f"there is no file {str(self.path)!r}: give a JSONL file of questions and answers")
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self._add(number, line)
        if self.bad_lines and not skip_bad:
            raise TaskError(self._report())
        if not self._problems:
            raise TaskError(f"{self.path} has no usable line. {self._report() if self.bad_lines else 'It is empty.'}")

    def __len__(self) -> int:
        return len(self._problems)

    def problems(self, n: int | None = None, seed: int = 0) -> list[Problem]:
        """The first `n` problems (all by default); a seed other than 0 shuffles the file first.

        Raises:
            TaskError: the file has fewer.
        """
        if n is not None and not 0 <= n <= len(self):
            raise TaskError(f"{n} problems are wanted and {self.path} has {len(self)}: ask for at most {len(self)}")
        found = list(self._problems.values())
        if seed != 0:
            random.Random(seed).shuffle(found)
        return found[:n]

    def answer(self, text: str, problem: Problem) -> Hashable | None:
        """The key of the answer that a solution gives, or None."""
        return self._equivalence.key(text, problem)

    def correct(self, text: str, problem: Problem) -> bool:
        """Whether the solution's key is the reference's."""
        key = self.answer(text, problem)
        return key is not None and key == self._keys[problem.id]

    def _add(self, number: int, line: bytes) -> None:
        try:
            problem = self._problem(number, parse_object(line))
            if problem.id in self._problems:
                raise ValueError(f"the id {problem.id!r} is taken by an earlier line")
            self._keys[problem.id] = self._reference_key(problem)
        except ValueError as error:
            self.bad_lines.append(BadLine(number, str(error)))
        else:
            self._problems[problem.id] = problem

    def _problem(self, number: int, record: dict[str, Any]) -> Problem:
        question_field, answer_field, id_field = self._fields
        for name in (question_field, answer_field):
            if name not in record:
                raise ValueError(f"no field {name!r} (it has {', '.join(map(repr, record)) or 'none'})")
        question, answer = record[question_field], record[answer_field]
        if not _is_prompt(question):
            raise ValueError(f"{question_field!r} must be text or a list of chat messages, not {_kind(question)}")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise ValueError(f"{answer_field!r} must be text or a number, not {_kind(answer)}")
        name = str(record.get(id_field, number))
        return Problem(f"{self.name}/{name}", question, str(answer), self.name, {"line": number})

    def _reference_key(self, problem: Problem) -> Hashable:
        reference = problem.answer or ""
        # A bare reference is all answer: marked as such, it is read in the same way as a solution's marked part.
        text = reference if marked_answer(reference) is not None else f"#### {reference.strip()}"
        key = self._equivalence.key(text, problem)
        if key is None:
            raise ValueError(f"no answer can be read from {reference[:60]!r}")
        return key

    def _report(self) -> str:
        shown = "; ".join(map(str, self.bad_lines[:SHOWN_BAD_LINES]))
        more = len(self.bad_lines) - SHOWN_BAD_LINES
        return (
            f"{self.path} has {len(self.bad_lines)} bad line(s): {shown}{f'; and {more} more' if more > 0 else ''}. "
            "Mend them, name the fields with question=... and answer=..., or skip them with skip_bad=True"
        )


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip() != ""
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)


def _kind(value: Any) -> str:
    return "empty" if value in ("", []) else f"{type(value).__name__} {value!r}"[:80]
