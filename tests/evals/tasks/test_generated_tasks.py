"""What both generated tasks promise: the same problems every time, disjoint splits, reference solutions that check."""

import itertools

import pytest

from ramify.evals.tasks import Countdown, Task, WordProblems, get_task, task_names
from ramify.evals.tasks.base import Split
from tests.evals.tasks.drawn import listed, numbered

TASKS = [get_task(name) for name in task_names()]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
each_task = pytest.mark.parametrize("task", TASKS, ids=task_names())


@each_task
def test_the_same_arguments_give_the_same_problems(task: Task) -> None:
    again = get_task(task.name)
    assert task.problems(50, seed=3) == again.problems(50, seed=3)
    assert task.problems(50, seed=3) != task.problems(50, seed=4)


@each_task
def test_a_longer_list_starts_with_the_shorter_one(task: Task) -> None:
    assert task.problems(60)[:20] == task.problems(20)


@each_task
def test_ids_are_unique_and_lead_back_to_the_problem(task: Task) -> None:
    problems = task.problems(40, seed=2, split="validation")
    assert len({problem.id for problem in problems}) == 40
    for problem in problems[:10]:
        name, split, seed, index = problem.id.split("/")
        assert (name, split, seed) == (task.name, "validation", "2")
        assert task.problem(int(index), int(seed), "validation") == problem


@each_task
def test_a_list_holds_no_prompt_twice(task: Task) -> None:
    assert len({problem.prompt for problem in listed(task.name)}) == 300


@each_task
def test_a_problem_names_its_content_so_that_one_puzzle_in_two_wordings_is_known(task: Task) -> None:
    for index in range(20):
        problem, content = task._numbered(index, 5, "test")
        assert problem.metadata["content"] == content


@each_task
def test_no_content_of_one_split_occurs_in_another_whatever_the_seeds(task: Task) -> None:
    contents = {
        split: {numbered(task.name, split, seed, index).metadata["content"] for seed in (0, 7) for index in range(100)}
        for split in SPLITS
    }
    for one, other in itertools.combinations(contents.values(), 2):
        assert not one & other


@each_task
def test_every_reference_solution_is_right_in_every_step(task: Task) -> None:
    for split in SPLITS:
        for index in range(100):
            problem = numbered(task.name, split, 7, index)
            text = task.solution(problem)
            assert task.correct(text, problem), text
            assert task.answer(text, problem) is not None
            assert task.step_labels(problem, text) == [True] * len(text.split("\n")), (problem, text)


@each_task
def test_a_corrupted_step_is_wrong_and_so_is_everything_after_it(task: Task) -> None:
    for problem in listed(task.name)[:100]:
        lines = task.solution(problem).split("\n")
        for wrong in range(len(lines) - 1):
            head, result = lines[wrong].split(" = ")
            corrupted = [*lines[:wrong], f"{head} = {int(result) + 1}", *lines[wrong + 1 :]]
            labels = task.step_labels(problem, "\n".join(corrupted))
            assert labels == [True] * wrong + [False] * (len(lines) - wrong)


@each_task
def test_nothing_after_the_final_line_is_right(task: Task) -> None:
    problem = task.problem(0)
    text = task.solution(problem)
    steps = len(text.split("\n"))
    assert task.step_labels(problem, text + "\n1 + 1 = 2\n") == [True] * steps + [False, False]


@each_task
def test_text_without_a_marked_line_has_no_answer(task: Task) -> None:
    problem = task.problem(0)
    for text in ("", "\n\n", "17", "it is 4", "x" * 200_000, "####", "#### ", "#### seven", "#### \uff11\uff17"):
        assert task.answer(text, problem) is None, text
        assert not task.correct(text, problem)


def test_an_unknown_split_or_task_is_an_error_that_names_the_choices() -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        TASKS[0].problem(0, split="tset")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="word_problems, countdown"):
        get_task("sudoku")


def test_asking_for_more_problems_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        Countdown({2: 1.0}, largest_number=3, largest_target=9).problems(50)


def test_a_mix_outside_the_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="between 2 and 8"):
        WordProblems({1: 1.0})
    with pytest.raises(ValueError, match="between 2 and 6"):
        Countdown({9: 1.0})
