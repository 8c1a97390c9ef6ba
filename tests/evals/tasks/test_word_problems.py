"""Word problems: as many steps as asked for, small whole numbers, labels that follow the chain, not the order."""

import pytest

from ramify.evals.tasks import WordProblems
from ramify.evals.tasks.word_problems import FORMS, LARGEST
from ramify.scoring.problem import Problem
from tests.evals.tasks.drawn import listed

TASK = WordProblems()
CHAIN = Problem(
    "x", "...", "20", "word_problems", {"steps": ("3 * 4 = 12", "5 + 3 = 8", "12 + 8 = 20"), "needs": ((), (), (0, 1))}
)


@pytest.mark.parametrize("steps", range(2, 9))
def test_a_mix_of_one_length_gives_that_many_steps(steps: int) -> None:
    for problem in WordProblems({steps: 1.0}).problems(50):
        assert len(problem.metadata["steps"]) == steps


@pytest.mark.parametrize("form", FORMS)
def test_forms_asked_for_are_the_forms_given(form: str) -> None:
    assert {problem.metadata["form"] for problem in WordProblems(forms={form: 1.0}).problems(30)} == {form}


def test_an_unknown_form_is_an_error_that_names_the_choices() -> None:
    with pytest.raises(ValueError, match="story, picture, both, shuffled"):
        WordProblems(forms={"poem": 1.0})


def test_every_number_is_small_and_positive() -> None:
    for problem in listed(TASK.name):
        for line in problem.metadata["steps"]:
            assert all(1 <= int(part) <= LARGEST for part in line.split() if part.isdigit())


def test_every_step_but_the_last_is_needed_by_another() -> None:
    for problem in listed(TASK.name):
        needed = {index for needs in problem.metadata["needs"] for index in needs}
        assert needed == set(range(len(problem.metadata["steps"]) - 1))


def test_independent_steps_may_come_in_any_order_and_operands_too() -> None:
    assert TASK.step_labels(CHAIN, "3 + 5 = 8\n4 * 3 = 12\n8 + 12 = 20\n#### 20") == [True] * 4


def test_a_step_before_its_inputs_or_taken_twice_is_wrong() -> None:
    assert TASK.step_labels(CHAIN, "3 * 4 = 12\n12 + 8 = 20\n#### 20") == [True, False, False]
    assert TASK.step_labels(CHAIN, "3 * 4 = 12\n3 * 4 = 12") == [True, False]


def test_true_arithmetic_that_is_no_part_of_the_chain_is_wrong() -> None:
    assert TASK.step_labels(CHAIN, "3 + 4 = 7") == [False]


def test_a_wrong_final_number_is_wrong_after_right_steps() -> None:
    assert TASK.step_labels(CHAIN, "3 * 4 = 12\n5 + 3 = 8\n12 + 8 = 20\n#### 21") == [True, True, True, False]


@pytest.mark.parametrize(
    "line", ["", "3*4=12", "3 * 4 = 12 ", "3 * 4 = 12 = 12", "3 ** 4 = 81", "\uff13 * 4 = 12", "9" * 5000]
)
def test_a_line_in_another_form_is_wrong(line: str) -> None:
    assert TASK.step_labels(CHAIN, line) == [False]


def test_equal_numbers_have_equal_keys() -> None:
    assert TASK.answer("#### 20", CHAIN) == TASK.answer("1 + 1 = 2\n####  020", CHAIN) == 20
    assert TASK.answer("#### 1\n#### 20", CHAIN) == 20
    assert TASK.answer("#### " + "9" * 10_000, CHAIN) is None
