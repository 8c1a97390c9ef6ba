"""Unit tests as a scorer: each test's outcome is what it was, and only coming to the end is passing."""

import asyncio

import pytest

from ramify.backends.base import Node
from ramify.errors import CapabilityError, ScorerError, TaskError
from ramify.randomness import BranchKey
from ramify.scoring import Problem, UnitTests
from ramify.scoring.sandbox import Sandbox
from ramify.scoring.scorers import checked_scores

QUICK = Sandbox(wall_s=2.0, cpu_s=1, output_bytes=20_000)
DOUBLE = "```python\ndef double(x):\n    return 2 * x\n```"
ASSERTS = ("assert double(2) == 4", "assert double('a') == 'aa'", "assert double(0) == 1, 'no'", "assert dble(1)")


def sandbox_or_skip():
    try:
        QUICK.run("")
    except CapabilityError as refused:
        pytest.skip(str(refused))


@pytest.fixture(autouse=True)
def _walls():
    sandbox_or_skip()


def problem(*tests):
    return Problem("code", "?", metadata={"tests": list(tests)})


def verdicts(text, *tests):
    return [outcome.verdict for outcome in UnitTests(sandbox=QUICK).report(text, problem(*tests))]


def score(scorer, texts, *tests):
    nodes = [Node(BranchKey(0, place), text=text) for place, text in enumerate(texts)]
    return list(asyncio.run(checked_scores(scorer, nodes, problem(*tests), backend=None)).values)


def test_the_score_is_the_share_of_tests_passed_or_whether_all_are():
    texts = [DOUBLE, "no program here is this:\n```text\nx\n```", DOUBLE]
    assert score(UnitTests(sandbox=QUICK), texts, *ASSERTS) == [0.5, 0, 0.5]
    assert score(UnitTests(pass_all=True, sandbox=QUICK), texts, *ASSERTS) == [0, 0, 0]
    assert score(UnitTests(pass_all=True, sandbox=QUICK), texts, *ASSERTS[:2]) == [1, 0, 1]


def test_each_outcome_is_reported_as_what_it_was():
    report = UnitTests(sandbox=QUICK).report(DOUBLE, problem(*ASSERTS))
    assert [outcome.verdict for outcome in report] == ["passed", "passed", "wrong", "error"]
    assert [outcome.detail for outcome in report][2:] == [
        "AssertionError: no",
        "NameError: name 'dble' is not defined. Did you mean: 'double'?",
    ]
    assert verdicts("while True: pass", "pass") == ["timeout"]
    assert verdicts("x = [0] * 10**9", "pass") == ["memory"]
    assert verdicts("import socket\nsocket.socket()", "pass") == ["forbidden"]
    assert verdicts("while True: print('y' * 999)", "pass") == ["output"]
    assert verdicts("def f(:", "pass") == ["error"]
    assert verdicts("```text\nx\n```", "pass", "pass") == ["no program"] * 2


def test_a_program_that_leaves_before_the_end_has_not_passed():
    assert verdicts("import sys\nsys.exit(0)", "assert False") == ["wrong"]
    assert verdicts("import atexit\natexit.register(print, 'done')", "pass") == ["wrong"]
    assert verdicts("print('no line end', end='')", "pass") == ["passed"]


def test_input_and_output_are_compared_but_for_spaces_at_line_ends():
    echo = "```\nfor x in open(0):\n    print(int(x) * 2, end=' \\n')\n```"
    tests = [{"input": "1\n2\n", "output": "2\n4"}, {"input": "1\n", "output": "3"}, {"input": "x", "output": ""}]
    report = UnitTests(sandbox=QUICK).report(echo, problem(*tests))
    assert [(outcome.verdict, outcome.detail) for outcome in report[:2]] == [("passed", ""), ("wrong", "2")]
    assert report[2].verdict == "error"


@pytest.mark.parametrize("tests", [None, [], "assert True", [" "], [{"input": "1"}], [3]])
def test_tests_that_cannot_be_run_are_an_error_and_no_score(tests):
    asked = Problem("code", "?", metadata={} if tests is None else {"tests": tests})
    with pytest.raises(TaskError, match="metadata|must be Python"):
        UnitTests(sandbox=QUICK).report(DOUBLE, asked)
    with pytest.raises(ScorerError, match="TaskError"):
        asyncio.run(checked_scores(UnitTests(sandbox=QUICK), [Node(BranchKey(0, 0), text=DOUBLE)], asked, None))
