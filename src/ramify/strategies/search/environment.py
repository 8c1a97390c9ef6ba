"""Environments that a model acts in by text: what agent search needs of one, and two that come with it.

An environment goes back only by starting over: `reset` must bring it to the same start, and the same actions from there
to the same observations.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol, runtime_checkable

from ramify.errors import ConfigError, RequestError
from ramify.scoring.problem import Problem

ANSWER_MARK = "####"
LONGEST_EXPRESSION = 200  # characters; an action is a model's text and may be anything
_STEP = re.compile(r"([0-9]{1,6}) ?([-+*/]) ?([0-9]{1,6}) ?= ?([0-9]{1,6})")


@runtime_checkable
class Environment(Protocol):
    """A world with one actor."""

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        ...

    @property
    def score(self) -> float:
        """How well it stands, from 0 to 1; 1 in an episode that is over means that the goal was reached."""
        ...

    def reset(self) -> str:
        """Start over; gives the first observation (empty if the problem's prompt says it all)."""
        ...

    def act(self, action: str) -> str:
        """Do something; gives what is then observed, possibly nothing. An action that makes no sense is no error."""
        ...


EnvironmentMaker = Callable[[Problem], Environment]


class AnswerWorld:
    """The answer itself as the world: every step is accepted, nothing is observed, and the model says when it ends."""

    done = False
    score = 0.0

    def __init__(self, problem: Problem) -> None:
        """Needs nothing of the problem."""

    def reset(self) -> str:
        """Nothing to observe."""
        return ""

    def act(self, action: str) -> str:
        """Nothing to observe."""
        return ""


class CountdownWorld:
    """Countdown as a world: an action combines two of the numbers that are left, or states the whole expression.

    ``7 * 3 = 21`` takes 7 and 3 away and puts 21 there; ``#### 7 * 3 + 4`` ends the episode, with score 1 if the
    expression uses every number once and gives the target. A wrong step ends it with 0.

    Args:
        problem: its metadata holds "numbers" and "target".

    Raises:
        ConfigError: it does not.
    """

    def __init__(self, problem: Problem) -> None:
        numbers, target = problem.metadata.get("numbers"), problem.metadata.get("target")
        if not isinstance(numbers, Sequence) or not isinstance(target, int):
            raise ConfigError(
                f"problem {problem.id!r} has no numbers and target in its metadata: environment=countdown needs them"
            )
        self._numbers = sorted(numbers)
        self._target = target
        self.reset()

    def reset(self) -> str:
        """All numbers are there again. The prompt names them, so nothing is observed."""
        self.left = list(self._numbers)
        self.done = False
        self.score = 0.0
        return ""

    def act(self, action: str) -> str:
        """Take a step or state the expression."""
        if self.done:
            raise RequestError("the episode is over: reset the environment before the next action")
        action = action.strip()
        if action.startswith(ANSWER_MARK):
            self.done, self.score = True, float(self._solves(action.removeprefix(ANSWER_MARK).strip()))
        elif not self._step(action):
            self.done = True
        return ""

    def _step(self, action: str) -> bool:
        """Combine two numbers; whether the step was a right one."""
        written = _STEP.fullmatch(action)
        if written is None:
            return False
        left, right, result = (int(written[group]) for group in (1, 3, 4))
        remaining = list(self.left)
        for number in (left, right):
            if number not in remaining:
                return False
            remaining.remove(number)
        if evaluate(f"{left} {written[2]} {right}") != (Fraction(result), sorted((left, right))):
            return False
        self.left = [*remaining, result]
        return True

    def _solves(self, expression: str) -> bool:
        return evaluate(expression) == (Fraction(self._target), self._numbers)


def evaluate(expression: str) -> tuple[Fraction, list[int]] | None:
    """Exact value of an expression of whole numbers with + - * / and brackets, and its numbers in order of size.

    None for anything else, and where something is divided by 0.
    """
    if len(expression) > LONGEST_EXPRESSION or not re.fullmatch(r"[0-9+\-*/() ]+", expression):
        return None
    numbers: list[int] = []
    try:
        value = _value(ast.parse(expression, mode="eval").body, numbers)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None
    return value, sorted(numbers)


def _value(tree: ast.expr, numbers: list[int]) -> Fraction:
    match tree:
        case ast.Constant(value=int(number)):
            numbers.append(number)
            return Fraction(number)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, numbers) + _value(right, numbers)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left, numbers) - _value(right, numbers)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left, numbers) * _value(right, numbers)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left, numbers) / _value(right, numbers)
    raise ValueError("not an expression of whole numbers")


WORLDS: dict[str, EnvironmentMaker] = {"answer": AnswerWorld, "countdown": CountdownWorld}
"""The environments that a spec can name."""


def make_environment(wanted: str | EnvironmentMaker, problem: Problem) -> Environment:
    """The environment of a problem: the one that its metadata name under "environment", else the one `wanted`.

    Raises:
        ConfigError: no environment has this name, or what was made is none.
    """
    wanted = problem.metadata.get("environment", wanted)
    if isinstance(wanted, str):
        if wanted not in WORLDS:
            raise ConfigError(f"environment={wanted!r} does not work: choose from {', '.join(WORLDS)}, or pass a class")
        wanted = WORLDS[wanted]
    made = wanted(problem)
    if not isinstance(made, Environment):
        raise ConfigError(f"{made!r} is no environment: it needs reset(), act(action), done and score")
    return made
