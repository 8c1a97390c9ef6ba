"""Solutions with made-up mistakes, as many as wanted, for the reward model: what sampled solutions show too rarely.

They imitate how the policy goes wrong: a last result that is the target whatever the operation gives, an operation or a
number that is not the one asked for, a slip of arithmetic. Labels come from the task, as for sampled solutions.
"""

import random

from ramify.evals.tasks.arithmetic import Step, apply, read_step
from ramify.evals.tasks.countdown import reachable
from ramify.scoring.problem import Problem

_SLIP = 0.06
_STRAY = 0.04
_FORCED = 0.6
_GOOD_MOVE = 0.6
_WRONG_WORD_STEP = 0.12


def countdown_attempt(rng: random.Random, problem: Problem) -> str:
    """Write a Countdown solution of which any line may be wrong."""
    target: int = problem.metadata["target"]
    pool = [(number, str(number)) for number in problem.metadata["numbers"]]
    lines = []
    while len(pool) > 1:
        i, j, step = _move(rng, pool, target)
        result = step.result
        if len(pool) == 2 and result != target and rng.random() < _FORCED:
            result = target
        elif rng.random() < _SLIP:
            result = max(0, result + rng.choice((-10, -3, -2, -1, 1, 2, 3, 10)))
        left, right = step.left, step.right
        if rng.random() < _STRAY:
            right = rng.randint(1, 12)
        lines.append(str(Step(left, step.op, right, result)))
        text = f"({pool[i][1]} {step.op} {pool[j][1]})"
        pool = [part for k, part in enumerate(pool) if k not in (i, j)] + [(result, text)]
    expression = pool[0][1][1:-1]
    if rng.random() < _SLIP:
        expression = expression.replace(*rng.sample("+-*/", 2), 1)
    return "\n".join([*lines, f"#### {expression}"])


def _move(rng: random.Random, pool: list[tuple[int, str]], target: int) -> tuple[int, int, Step]:
    """Choose an operation on two parts of the pool, the larger first; often one that keeps the target in reach."""
    moves = []
    for i, (a, _) in enumerate(pool):
        for j, (b, _) in enumerate(pool):
            if i == j or a < b or (a == b and i > j):
                continue
            for op in "+-*/":
                result = apply(a, op, b)
                if result is not None and result <= 150:
                    moves.append((i, j, Step(a, op, b, result)))
    rng.shuffle(moves)
    if rng.random() < _GOOD_MOVE:
        for i, j, step in moves:
            rest = tuple(number for k, (number, _) in enumerate(pool) if k not in (i, j))
            if reachable((*rest, step.result), target):
                return i, j, step
    return moves[0]


def word_problem_attempt(rng: random.Random, problem: Problem) -> str:
    """Write a word problem's solution of which any line may be wrong; later lines go on with the wrong value."""
    numbers = [int(word.strip(".,?")) for word in str(problem.prompt).split() if word.strip(".,?").isdigit()]
    values: dict[int, int] = {}
    lines, last = [], 0
    for line in problem.metadata["steps"]:
        step = read_step(line)
        assert step is not None
        left, right = values.get(step.left, step.left), values.get(step.right, step.right)
        op = step.op
        if rng.random() < _WRONG_WORD_STEP:
            kind = rng.randrange(3)
            if kind == 0:
                op = {"+": "-", "-": "+", "*": "/", "/": "*"}[op]
            elif kind == 1:
                right = rng.choice([*numbers, *values.values()] or [right])
            else:
                left = rng.choice([*numbers, *values.values()] or [left])
        result = _rough(left, op, right)
        if rng.random() < _SLIP:
            result = max(0, result + rng.choice((-10, -2, -1, 1, 2, 10)))
        values[step.result] = last = result
        lines.append(str(Step(left, op, right, result)))
    return "\n".join([*lines, f"#### {last}"])


def _rough(left: int, op: str, right: int) -> int:
    """Compute as a careless writer would: no negative numbers, no fractions."""
    if op == "/":
        return left // max(right, 1)
    return abs(apply(left, op, right) or 0) % 1000
