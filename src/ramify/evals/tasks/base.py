"""What every generated task offers: seeded problems in disjoint splits, answer reading, and labels for single steps.

A problem is a pure function of (task, split, seed, index). The split a problem belongs to is decided by a hash of its
content, so no problem of one split can turn up in another, whatever the seeds.
"""

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Literal, get_args

from ramify.scoring.problem import Problem

Split = Literal["train", "validation", "test"]
ANSWER_MARK = "####"
_SPLIT_BUCKETS = 1000
_TEST_BUCKETS = 100
_VALIDATION_BUCKETS = 50
# A solution is a few hundred characters; anything far longer is not read, so hostile text costs nothing.
_LONGEST_TEXT = 100_000


class Task(ABC):
    """A source of problems whose answers, and whose single steps, can be checked by program."""

    name: str

    @abstractmethod
    def draw(self, rng: random.Random, split: Split) -> tuple[Problem, str]:
        """Draw one problem and its canonical content; equal contents always land in the same split."""

    @abstractmethod
    def answer(self, text: str, problem: Problem) -> Hashable | None:
        """Read the answer out of a solution text as a key that is equal for equivalent answers; None if unreadable."""

    @abstractmethod
    def correct(self, text: str, problem: Problem) -> bool:
        """Say whether the solution text ends in a right answer."""

    @abstractmethod
    def solution(self, problem: Problem) -> str:
        """Give the reference solution: one operation a line, then the marked final line, no newline at the end."""

    @abstractmethod
    def step_labels(self, problem: Problem, text: str) -> list[bool]:
        """Label each line of a solution: True while every line so far, this one included, is right."""

    def problem(self, index: int, seed: int = 0, split: Split = "test") -> Problem:
        """Make problem number `index` of a split; its id names task, split, seed and index."""
        return self._numbered(index, seed, split)[0]

    def problems(self, n: int, seed: int = 0, split: Split = "test") -> list[Problem]:
        """Make `n` problems with different prompts.

        One puzzle can come again in another wording or order: drawing without regard to that keeps the mix as it is.
        Such problems have the same ``metadata["content"]``, so that an interval can count them as one.
        A longer list starts with the shorter one. Raises ValueError if the split has not that many problems.
        """
        seen: set[object] = set()
        found: list[Problem] = []
        index = 0
        while len(found) < n:
            if index > 50 * n + 1000:
                raise ValueError(f"{self.name}: found only {len(found)} different problems of {n}; ask for fewer")
            problem = self.problem(index, seed, split)
            index += 1
            if problem.prompt not in seen:
                seen.add(problem.prompt)
                found.append(problem)
        return found

    def _numbered(self, index: int, seed: int, split: Split) -> tuple[Problem, str]:
        if split not in get_args(Split):
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(get_args(Split))}")
        rng = random.Random(_hash(f"{self.name}/{split}/{seed}/{index}"))
        while True:
            problem, content = self.draw(rng, split)
            if split_of(f"{self.name}/{content}") == split:
                break
        name = f"{self.name}/{split}/{seed}/{index}"
        metadata = {**problem.metadata, "content": content}
        return Problem(name, problem.prompt, problem.answer, self.name, metadata), content


def split_of(content: str) -> Split:
    """Give the split a problem content belongs to: 10% test, 5% validation, the rest train."""
    bucket = _hash(content) % _SPLIT_BUCKETS
    if bucket < _TEST_BUCKETS:
        return "test"
    return "validation" if bucket < _TEST_BUCKETS + _VALIDATION_BUCKETS else "train"


def final_line(text: str) -> str | None:
    """Give what follows the mark on the last marked line of a solution, or None if no line is marked."""
    if len(text) > _LONGEST_TEXT:
        return None
    for line in reversed(text.split("\n")):
        if line.startswith(ANSWER_MARK):
            return line.removeprefix(ANSWER_MARK).strip(" ")
    return None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
