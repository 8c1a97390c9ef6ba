"""What teaches the reward model to check: Countdown attempts that are right or end near the target, one verdict each.

Labels of sampled lines alone did not bring it to compare the last result with the target in 1,500 steps: whether a
target is still in reach is often too hard at this size, and drowns the one thing that can be checked. With these
examples alone it learns that within 200 steps, and keeps it in a mixture of both.
"""

import random
from collections.abc import Iterator

from tokenizers import Tokenizer
from torch import Tensor

from ramify.evals.tasks import Countdown
from ramify.evals.tasks.arithmetic import Step, apply
from ramify.scoring.problem import Problem
from training.data import IGNORE, Example, cut, render
from training.prm import END_MARK, FIRST_INDEX

_POOL_BATCHES = 32
_SEED = 7777
_RIGHT = 0.5
_NEAREST = 4
_LARGEST = 150


def check_batches(
    tokenizer: Tokenizer, sampled: list[Example], share: float, tokens_per_batch: int, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless batches from number `start` on: a `share` of attempts to check, the rest sampled solutions."""
    task = Countdown()
    number, skip = divmod(start, _POOL_BATCHES)
    while True:
        rng = random.Random(_SEED + number)
        examples: list[Example] = []
        total = 0
        while total < _POOL_BATCHES * tokens_per_batch:
            if rng.random() < share:
                problem = task.problem(rng.randrange(FIRST_INDEX, 2 * FIRST_INDEX), 5, "train")
                example = _judged(tokenizer, task, problem, attempt(rng, task, problem), rng.random() < 0.5)
            else:
                example = rng.choice(sampled)
            examples.append(example)
            total += len(example.ids)
        yield from cut(examples, _POOL_BATCHES, rng.randrange(1 << 30))[skip:]
        number, skip = number + 1, 0


def attempt(rng: random.Random, task: Countdown, problem: Problem) -> str:
    """Write the reference solution, or one whose arithmetic holds and whose last result is near the target."""
    if rng.random() < _RIGHT:
        return task.solution(problem)
    pool = [(number, str(number)) for number in problem.metadata["numbers"]]
    lines = []
    while len(pool) > 1:
        moves = _moves(pool)
        if len(pool) == 2:
            moves = sorted(moves, key=lambda move: abs(move[2].result - problem.metadata["target"]))[:_NEAREST]
        i, j, step = rng.choice(moves)
        lines.append(str(step))
        text = f"({pool[i][1]} {step.op} {pool[j][1]})"
        pool = [part for k, part in enumerate(pool) if k not in (i, j)] + [(step.result, text)]
    return "\n".join([*lines, f"#### {pool[0][1][1:-1]}"])


def _moves(pool: list[tuple[int, str]]) -> list[tuple[int, int, Step]]:
    """Every operation on two parts of the pool, the larger first."""
    moves = []
    for i, (a, _) in enumerate(pool):
        for j, (b, _) in enumerate(pool):
            if i == j or a < b or (a == b and i > j):
                continue
            results = ((op, apply(a, op, b)) for op in "+-*/")
            moves += [(i, j, Step(a, op, b, r)) for op, r in results if r is not None and r <= _LARGEST]
    return moves


def _judged(tokenizer: Tokenizer, task: Countdown, problem: Problem, text: str, ended: bool) -> Example:
    """Label the ends of the last operation and of the answer with whether the answer is right."""
    prompt = tokenizer.encode(render(problem)).ids
    solution = tokenizer.encode(text + (END_MARK if ended else "\n")).ids
    ends = (tokenizer.token_to_id("Ċ"), tokenizer.token_to_id(END_MARK))
    marks = [position for position, token in enumerate(solution) if token in ends]
    targets = [IGNORE] * (len(prompt) + len(solution))
    for position in marks[-2:]:
        targets[len(prompt) + position] = int(task.correct(text, problem))
    return Example(prompt + solution, targets)
