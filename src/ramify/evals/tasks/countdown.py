"""Countdown: reach a target from given numbers with + - * /, every number used exactly once.

A solution writes one operation a line on the numbers that remain, then the whole expression on the marked line. The
expression is read by a small parser (never `eval`) and checked by exact whole-number arithmetic. Searching with a
language model on this puzzle: Gandhi et al., "Stream of Search" (2024).
"""

import random
from collections.abc import Hashable, Mapping
from functools import lru_cache

from ramify.evals.tasks.arithmetic import Step, apply, make_step, read_step
from ramify.evals.tasks.base import ANSWER_MARK, Split, Task, final_line
from ramify.evals.tasks.expression import canonical, numbers_in, parse, value
from ramify.scoring.problem import Problem

# How often each count of numbers is drawn. The test mix is set so that a single sample of the bundled policy is weak.
TRAIN_MIX: Mapping[int, float] = {3: 0.5, 4: 0.5}
TEST_MIX: Mapping[int, float] = {3: 0.9, 4: 0.1}

_PROMPTS = (
    "Use the numbers {numbers} to make {target}. Use every number exactly once.",
    "Make {target} from the numbers {numbers}, using each of them exactly once.",
    "Combine {numbers} to reach {target}. Each number must be used exactly once.",
)


class Countdown(Task):
    """The puzzle with `mix` giving how often each count of numbers is drawn (default: by split)."""

    name = "countdown"

    def __init__(
        self,
        mix: Mapping[int, float] | None = None,
        largest_number: int = 12,
        largest_target: int = 100,
        largest_result: int = 144,
    ) -> None:
        if mix is not None and not all(2 <= count <= 6 for count in mix):
            raise ValueError(f"the mix names counts of numbers {sorted(mix)}; each must be between 2 and 6")
        self._mix = mix
        self._largest_number = largest_number
        self._largest_target = largest_target
        self._largest_result = largest_result

    def draw(self, rng: random.Random, split: Split) -> tuple[Problem, str]:
        mix = self._mix or (TRAIN_MIX if split == "train" else TEST_MIX)
        count = rng.choices(list(mix), list(mix.values()))[0]
        while True:
            numbers = [rng.randint(1, self._largest_number) for _ in range(count)]
            solved = self._combine(rng, numbers)
            if solved is not None:
                break
        steps, expression, target = solved
        shown = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
        prompt = rng.choice(_PROMPTS).format(numbers=shown, target=target)
        metadata = {"numbers": tuple(numbers), "target": target, "steps": tuple(map(str, steps))}
        problem = Problem("", prompt, expression, self.name, metadata)
        return problem, f"{sorted(numbers)} {target}"

    def answer(self, text: str, problem: Problem) -> Hashable | None:
        """Key: the expression in canonical form, the same for `7 + 25 * 4` and `(4 * 25) + 7`; None without a value.

        The target plays no part in it: equal keys mean the same way of combining the numbers, right or wrong.
        """
        line = final_line(text)
        tree = parse(line) if line is not None else None
        # Without a value, `12 / (8 / 3)` is not the answer that `12 * 3 / 8` would be in fractions.
        return canonical(tree) if tree is not None and value(tree) is not None else None

    def correct(self, text: str, problem: Problem) -> bool:
        line = final_line(text)
        return line is not None and _solves(line, problem)

    def solution(self, problem: Problem) -> str:
        return "\n".join([*problem.metadata["steps"], f"{ANSWER_MARK} {problem.answer}"])

    def step_labels(self, problem: Problem, text: str) -> list[bool]:
        """True while the arithmetic holds, only remaining numbers are used, and the target can still be reached."""
        remaining: list[int] | None = list(problem.metadata["numbers"])
        target = problem.metadata["target"]
        labels: list[bool] = []
        for line in text.split("\n"):
            if remaining is not None and line.startswith(ANSWER_MARK):
                labels.append(_solves(line.removeprefix(ANSWER_MARK).strip(" "), problem))
                remaining = None
                continue
            remaining = _take(remaining, read_step(line), target) if remaining is not None else None
            labels.append(remaining is not None)
        return labels

    def _combine(self, rng: random.Random, numbers: list[int]) -> tuple[list[Step], str, int] | None:
        """Combine the numbers by random operations; None if a draw leaves the range, so that the caller draws again."""
        pool = [(number, str(number)) for number in numbers]
        steps: list[Step] = []
        while len(pool) > 1:
            # The larger number goes first: differences stay positive, and equal solutions are written one way.
            (b, b_text), (a, a_text) = sorted(
                (pool.pop(rng.randrange(len(pool))) for _ in range(2)), key=lambda x: x[0]
            )
            # Steps by one factor change nothing, and would only make more solutions of the same thought.
            ops = [op for op in "+-*/" if not (op in "*/" and b == 1) and not (op == "-" and a == b)]
            op = rng.choice([op for op in ops if apply(a, op, b) is not None])
            step = make_step(a, op, b)
            if step.result > self._largest_result:
                return None
            steps.append(step)
            pool.append((step.result, f"({a_text} {op} {b_text})"))
        target, expression = pool[0]
        return (steps, expression[1:-1], target) if target <= self._largest_target else None


def reachable(numbers: tuple[int, ...], target: int) -> bool:
    """Say exactly whether whole-number steps that use every number once can end in the target.

    Args:
        numbers: what is left to combine; at least one number.
        target: the value to reach.
    """
    return target in _reachable_values(tuple(sorted(numbers)))


@lru_cache(maxsize=200_000)
def _reachable_values(numbers: tuple[int, ...]) -> frozenset[int]:
    if len(numbers) == 1:
        return frozenset(numbers)
    values: set[int] = set()
    for i in range(len(numbers)):
        for j in range(i + 1, len(numbers)):
            rest = numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]
            a, b = numbers[i], numbers[j]
            results = {apply(a, op, b) for op in "+-*/"} | {apply(b, op, a) for op in "-/"}
            for result in results:
                if result is not None:
                    values |= _reachable_values(tuple(sorted((*rest, result))))
    return frozenset(values)


def _take(remaining: list[int], step: Step | None, target: int) -> list[int] | None:
    """Apply one written step to the remaining numbers; None if the step is wrong or gives the target away."""
    if step is None or not step.holds:
        return None
    left = list(remaining)
    for number in (step.left, step.right):
        if number not in left:
            return None
        left.remove(number)
    left.append(step.result)
    return left if reachable(tuple(left), target) else None


def _solves(expression: str, problem: Problem) -> bool:
    tree = parse(expression)
    if tree is None or sorted(numbers_in(tree)) != sorted(problem.metadata["numbers"]):
        return False
    target: int = problem.metadata["target"]
    return value(tree) == target
