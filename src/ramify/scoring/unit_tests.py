"""Unit tests: a program is run against the problem's tests in the sandbox. Costs no tokens."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ramify.backends.base import Backend, Capability, Node
from ramify.errors import TaskError
from ramify.registry import register
from ramify.scoring.equivalence.code import python_block
from ramify.scoring.problem import Problem
from ramify.scoring.sandbox import Sandbox
from ramify.scoring.scorers import Reading, ScoreBatch

Verdict = Literal["passed", "wrong", "error", "timeout", "memory", "output", "forbidden", "no program"]
"""What came of a test: the sandbox's word where the program did not end well; "wrong" where it gave something else."""


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """What came of one test.

    Attributes:
        verdict: in a word.
        detail: the last line that the program wrote to standard error, or what it printed instead; at most 200
            characters.
    """

    __test__ = False

    verdict: Verdict
    detail: str = ""


@register("tests", kind="scorer", trade="approximate", page="techniques/scorers.md")
@dataclass(frozen=True, slots=True)
class UnitTests:
    """The share of the problem's tests that the answer's program passes.

    Tests are ``problem.metadata["tests"]``: texts of Python that run behind the program and pass if they come to their
    end, or ``{"input": text, "output": text}`` for standard input and output (spaces at line ends do not count).

    Attributes:
        pass_all: 1 where all tests pass and else 0, instead of the share.
        sandbox: the walls that programs run behind.
    """

    pass_all: bool = False
    sandbox: Sandbox = field(default_factory=Sandbox)

    @property
    def needs(self) -> frozenset[Capability]:
        """Nothing."""
        return frozenset()

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to 1."""
        return (0.0, 1.0)

    def cost(self, reading: Reading) -> int:
        """No tokens."""
        return 0

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One share a node; equal programs are run once.

        Raises:
            TaskError: the problem has no tests that could be run.
            CapabilityError: programs cannot be run safely on this machine.
        """
        reports: dict[str, tuple[TestOutcome, ...]] = {}
        for node in nodes:
            if node.text not in reports:
                reports[node.text] = await asyncio.to_thread(self.report, node.text, problem)
        shares = [np.mean([o.verdict == "passed" for o in reports[node.text]]) for node in nodes]
        return ScoreBatch(np.array([float(s == 1) if self.pass_all else s for s in shares], dtype=np.float64))

    def report(self, text: str, problem: Problem) -> tuple[TestOutcome, ...]:
        """What came of each test, in their order; an answer without a program has "no program" for all.

        Raises:
            TaskError, CapabilityError: see `score`.
        """
        tests = tests_of(problem)
        program = python_block(text)
        if program is None:
            return (TestOutcome("no program"),) * len(tests)
        return tuple(self._run(program, test) for test in tests)

    def _run(self, program: str, test: str | Mapping[str, str]) -> TestOutcome:
        if isinstance(test, str):
            # Coming to the end is passing, and a program that leaves before has not: the end is known by this line.
            end = hashlib.sha256(f"{program}\0{test}".encode(errors="surrogatepass")).hexdigest()
            run = self.sandbox.run(f"{program}\n\n{test}\n\nprint()\nprint({end!r})\n")
            passed = run.stdout.endswith(f"\n{end}\n")
            instead = "the program left before the end of the test"
        else:
            run = self.sandbox.run(program, test["input"])
            passed = _lines(run.stdout) == _lines(test["output"])
            instead = _lines(run.stdout)[:200]
        if run.outcome == "ok":
            return TestOutcome("passed") if passed else TestOutcome("wrong", instead)
        last_line = run.stderr.rstrip().rpartition("\n")[2]
        failed = run.outcome == "error" and last_line.partition(":")[0] == "AssertionError"
        return TestOutcome("wrong" if failed else run.outcome, last_line[:200])


def tests_of(problem: Problem) -> list[str | Mapping[str, str]]:
    """The problem's tests.

    Raises:
        TaskError: there are none, or one is neither a text nor a pair of input and output.
    """
    given: Any = problem.metadata.get("tests")
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise TaskError(
            f"problem {problem.id!r} has no metadata['tests']: give texts of Python, or input and output of each test"
        )
    for test in given:
        pair = isinstance(test, Mapping) and all(isinstance(test.get(key), str) for key in ("input", "output"))
        if not (pair or (isinstance(test, str) and test.strip())):
            raise TaskError(
                f"problem {problem.id!r} has the test {test!r}: it must be Python, or have texts for input and output"
            )
    return list(given)


def _lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))
