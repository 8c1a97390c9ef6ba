"""The generated tasks by name. A task is added here and nowhere else."""

from ramify.evals.tasks.base import Split, Task
from ramify.evals.tasks.countdown import Countdown
from ramify.evals.tasks.word_problems import WordProblems

_TASKS: dict[str, type[Task]] = {"word_problems": WordProblems, "countdown": Countdown}

__all__ = ["Countdown", "Split", "Task", "WordProblems", "get_task", "task_names"]


def task_names() -> list[str]:
    """Name the generated tasks."""
    return list(_TASKS)


def get_task(name: str) -> Task:
    """Make a task with its default difficulty. Raises ValueError for an unknown name."""
    if name not in _TASKS:
        raise ValueError(f"unknown task {name!r}; choose from {', '.join(_TASKS)}")
    return _TASKS[name]()
