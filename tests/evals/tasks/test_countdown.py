"""Countdown: the exact solver against brute force, what counts as a solution, and hostile expressions."""

import itertools
import random

import pytest

from ramify.evals.tasks import Countdown
from ramify.evals.tasks.countdown import reachable
from ramify.evals.tasks.expression import canonical, parse, value
from ramify.scoring.problem import Problem

TASK = Countdown()
PUZZLE = Problem("x", "...", None, "countdown", {"numbers": (3, 7, 25, 4), "target": 88, "steps": ()})


def every_value(numbers: tuple[int, ...]) -> set[int]:
    """Brute force: every order of the numbers, every choice of operations, every place of parentheses."""
    if len(numbers) == 1:
        return {numbers[0]}
    found = set()
    for cut in range(1, len(numbers)):
        for left, right in itertools.product(every_value(numbers[:cut]), every_value(numbers[cut:])):
            found |= {left + right, left - right, left * right}
            if right != 0 and left % right == 0:
                found.add(left // right)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_solver_agrees_with_brute_force(count: int) -> None:
    rng = random.Random(count)
    for _ in range(12):
        numbers = tuple(rng.randint(1, 9) for _ in range(count))
        truth = set().union(*(every_value(order) for order in set(itertools.permutations(numbers))))
        assert {target for target in range(-50, 150) if reachable(numbers, target)} == truth & set(range(-50, 150))


@pytest.mark.parametrize(
    "expression", ["(25 * 4) - (7 + 5)", "25 * 4 - 7 - 3", "88", "25 * 4 - 3 * 4", "3 + 7 + 25 + 4", "(25 - 3) * 4"]
)
def test_an_expression_with_the_wrong_value_or_numbers_is_wrong(expression: str) -> None:
    assert not TASK.correct(f"#### {expression}", PUZZLE)
    assert TASK.answer(f"#### {expression}", PUZZLE) is not None


@pytest.mark.parametrize("expression", ["(25 - (7 - 4)) * 4 ", "25 + 7 * (3 * 4 - 3)"])
def test_numbers_used_twice_are_wrong_even_if_the_value_is_right(expression: str) -> None:
    assert value(parse(expression)) == 88  # type: ignore[arg-type]
    assert not TASK.correct(f"#### {expression}", PUZZLE)


def test_a_right_expression_is_right_in_any_writing() -> None:
    puzzle = Problem("x", "...", None, "countdown", {"numbers": (2, 3, 4), "target": 10, "steps": ()})
    for expression in ("4 + 2 * 3", "(3 * 2) + 4", "(((4)) + (2*3))"):
        assert TASK.correct(f"#### {expression}", puzzle)
    keys = {TASK.answer(f"#### {e}", puzzle) for e in ("4 + 2 * 3", "(3 * 2) + 4", "4+(2*3)")}
    assert len(keys) == 1


def test_equal_keys_are_right_or_wrong_together() -> None:
    rng = random.Random(0)
    verdicts: dict[object, set[bool]] = {}
    puzzle = Problem("x", "...", None, "countdown", {"numbers": (2, 4, 6), "target": 3, "steps": ()})
    for _ in range(2000):
        (a, b, c), (p, q) = rng.sample((2, 4, 6), 3), rng.choices("+-*/", k=2)
        text = f"#### {a} {p} ({b} {q} {c})" if rng.random() < 0.5 else f"#### {a} {p} {b} {q} {c}"
        key = TASK.answer(text, puzzle)
        if key is not None:
            verdicts.setdefault(key, set()).add(TASK.correct(text, puzzle))
    assert all(len(verdict) == 1 for verdict in verdicts.values())
    assert {True} in verdicts.values()


def test_the_canonical_form_tells_different_thoughts_apart() -> None:
    def key(text: str) -> str:
        tree = parse(text)
        assert tree is not None
        return canonical(tree)

    assert key("8 - (3 - 2)") == key("2 + 8 - 3") == key("(8 + 2) - 3")
    assert key("12 / 3 * 2") == key("2 * 12 / 3") == key("12 / (3 / 2)")
    assert key("4 * 1") == key("4 / 1")
    assert key("8 - 3") != key("3 - 8")
    assert key("(2 + 3) * 4") != key("2 + 3 * 4")
    assert key("6 + 4") != key("5 + 5")


def test_steps_must_use_what_remains_and_leave_the_target_in_reach() -> None:
    puzzle = Problem("x", "...", None, "countdown", {"numbers": (3, 3, 8), "target": 14, "steps": ()})
    assert TASK.step_labels(puzzle, "3 + 3 = 6\n8 + 6 = 14\n#### 3 + 3 + 8") == [True] * 3
    assert TASK.step_labels(puzzle, "3 * 3 = 9\n8 + 9 = 17") == [False, False]
    assert TASK.step_labels(puzzle, "3 + 8 = 11\n3 + 8 = 11") == [True, False]
    assert TASK.step_labels(puzzle, "3 + 3 = 6\n8 + 6 = 15") == [True, False]
    assert TASK.step_labels(puzzle, "3 + 3 = 6\n8 + 6 = 14\n#### 3 + 8 + 8") == [True, True, False]


@pytest.mark.parametrize(
    "hostile",
    [
        "2 ** 3",
        "9 ** 9 ** 9 ** 9",
        "1e999",
        "(" * 100_000 + "1" + ")" * 100_000,
        "(" * 60 + "1" + ")" * 60,
        "1 +" * 100_000,
        "٣ + 4",
        "3 + ²",
        "__import__('os')",
        "3 +",
        "+ 3",
        "- 3 + 4",
        "(3 + 4",
        "3 + 4)",
        "3 4",
        "()",
        "3 , 4",
        "9999999",
        "3 + 4\t",
    ],
)
def test_malformed_and_hostile_expressions_have_no_key_and_are_never_right(hostile: str) -> None:
    assert TASK.answer(f"#### {hostile}", PUZZLE) is None
    assert not TASK.correct(f"#### {hostile}", PUZZLE)
    assert TASK.step_labels(PUZZLE, f"#### {hostile}") == [False]


@pytest.mark.parametrize("expression", ["25 / (7 - 3 - 4)", "25 / 4 + 7 * 3", "(25 - 25) / 0"])
def test_division_by_zero_or_with_a_remainder_has_no_value(expression: str) -> None:
    tree = parse(expression)
    assert tree is not None
    assert value(tree) is None
    assert TASK.answer(f"#### {expression}", PUZZLE) is None
    assert not TASK.correct(f"#### {expression}", PUZZLE)


def test_generated_puzzles_stay_in_the_range_asked_for() -> None:
    task = Countdown({3: 1.0}, largest_number=6, largest_target=20)
    for problem in task.problems(30):
        assert len(problem.metadata["numbers"]) == 3
        assert max(problem.metadata["numbers"]) <= 6
        assert 0 < problem.metadata["target"] <= 20
