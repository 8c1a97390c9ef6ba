"""Problems that several tests look at: to draw one of a rare split and form takes a hundredth of a second and more."""

from __future__ import annotations

from functools import cache

from ramify.evals.tasks import get_task
from ramify.evals.tasks.base import Split
from ramify.scoring.problem import Problem


@cache
def listed(task: str) -> tuple[Problem, ...]:
    """The first 300 of a task's test split."""
    return tuple(get_task(task).problems(300))


@cache
def numbered(task: str, split: Split, seed: int, index: int) -> Problem:
    """One problem by its number."""
    return get_task(task).problem(index, seed, split)
