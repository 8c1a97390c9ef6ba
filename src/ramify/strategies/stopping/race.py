"""Branches side by side, token for token, so that "the first to finish" has one meaning whatever the machine does.

Every branch takes the same stride before any takes the next. Those that end in a lap are ordered by their tokens, then
by launch. So who is first does not depend on timing, nor on how long a stride is; a longer one only runs the others
further past the line, by less than a stride each.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ramify.backends.base import Node
from ramify.errors import ConfigError
from ramify.strategies.kernel.context import Context
from ramify.strategies.steps import StepSplitter

STRIDE = 16
"""Tokens a lap: few enough that little is drawn past the line, enough that a batch's fixed costs do not count."""


@dataclass(frozen=True, slots=True)
class Runner:
    """A branch and its place in launch order."""

    lane: int
    node: Node

    @property
    def finished(self) -> bool:
        """Whether it has come to its end and was not cut."""
        return self.node.finish_reason == "stop"


@dataclass(frozen=True, slots=True)
class Lap:
    """What one stride brought.

    Attributes:
        over: those that crossed the line in it, the first one first.
        running: the others, by launch.
    """

    over: list[Runner]
    running: list[Runner]


async def laps(context: Context, n: int, stride: int = STRIDE, **sampling: Any) -> AsyncGenerator[Lap, None]:
    """Race `n` branches from the root; yields lap by lap until all have ended, by themselves or with the budget."""
    until = StepSplitter(max_tokens=stride)
    nodes = await context.extend([await context.root()], n, until=until, **sampling)
    running = [Runner(lane, node) for lane, node in enumerate(nodes)]
    while True:
        over = sorted((r for r in running if not r.node.open), key=lambda runner: runner.node.num_tokens)
        running = [runner for runner in running if runner.node.open]
        yield Lap(over, running)
        if not running:
            return
        moved = await context.step([runner.node for runner in running], until=until, **sampling)
        running = [Runner(runner.lane, node) for runner, node in zip(running, moved, strict=True)]


async def finishers(context: Context, n: int, stride: int = STRIDE, **sampling: Any) -> AsyncGenerator[Runner, None]:
    """Race `n` branches; yields each as it comes to its end. Close it (`aclosing`) to drop those still running."""
    running: list[Runner] = []
    try:
        async with aclosing(laps(context, n, stride, **sampling)) as race:
            async for lap in race:
                running = lap.running
                for runner in lap.over:
                    yield runner
    finally:
        context.drop([runner.node for runner in running])


def by_launch(runners: Iterable[Runner], best: Runner | None) -> tuple[list[Node], int | None]:
    """Nodes in launch order and the index of the best one: what `Context.report` takes."""
    ordered = sorted(runners, key=lambda runner: runner.lane)
    return [runner.node for runner in ordered], None if best is None else ordered.index(best)


def first_of(runners: Sequence[Runner], context: Context) -> Runner | None:
    """The one that stands for a race that nobody has won: the first of the finished ones, or else of those cut.

    Among cut ones, one whose whole lines hold an answer goes first.
    """

    def standing(runner: Runner) -> tuple[bool, bool]:
        return runner.finished, context.answer(runner.node) is not None

    return max(runners, key=standing, default=None)


def check_race(n: int, stride: int) -> None:
    """Refuse numbers that make no race.

    Raises:
        ConfigError: fewer than one branch, or a stride without tokens.
    """
    if n < 1:
        raise ConfigError(f"n={n} does not work: launch at least one answer")
    if stride < 1:
        raise ConfigError(f"stride={stride} does not work: a lap has at least one token")
