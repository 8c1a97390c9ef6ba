"""A JSONL file becomes a task; what cannot be read is reported by line number."""

import json
from pathlib import Path
from typing import Any

import pytest

from ramify.errors import TaskError
from ramify.evals.tasks.jsonl import JsonlTask
from ramify.scoring.problem import Problem


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_questions_and_answers_become_problems_with_checks(tmp_path: Path) -> None:
    path = write(
        tmp_path / "quiz.jsonl",
        {"question": "How many?", "answer": "3 + 4 = 7\n#### 7"},
        "",
        {"question": "What share?", "answer": 0.5, "id": "share"},
        {"question": [{"role": "user", "content": "Capital of France?"}], "answer": "Paris"},
    )
    task = JsonlTask(path)
    many, share, capital = task.problems()
    assert [many.id, share.id, capital.id] == ["quiz/1", "quiz/share", "quiz/4"]
    assert task.correct("so it is 7", many)
    assert not task.correct("so it is 8", many)
    assert task.correct("#### 1/2", share)
    assert task.correct("The answer is paris.", capital)
    assert task.answer("I do not know", capital) is None
    assert not task.correct("I do not know", capital)


def test_fields_may_have_any_names(tmp_path: Path) -> None:
    task = JsonlTask(write(tmp_path / "a.jsonl", {"q": "1+1?", "gold": 2, "uid": "x"}), "q", "gold", "uid")
    assert task.problems()[0] == Problem("a/x", "1+1?", "2", "a", {"line": 1})


def test_a_seed_shuffles_and_zero_keeps_the_order(tmp_path: Path) -> None:
    task = JsonlTask(write(tmp_path / "a.jsonl", *({"question": f"{i}?", "answer": i} for i in range(20))))
    order = [problem.answer for problem in task.problems()]
    assert order == [str(i) for i in range(20)]
    assert [problem.answer for problem in task.problems(5)] == order[:5]
    shuffled = [problem.answer for problem in task.problems(seed=1)]
    assert shuffled != order
    assert sorted(shuffled) == sorted(order)
    with pytest.raises(TaskError, match="21 problems are wanted and .* has 20"):
        task.problems(21)


def test_bad_lines_are_reported_by_number_or_skipped_on_request(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.jsonl",
        {"question": "1+1?", "answer": 2},
        '{"question": ',
        {"prompt": "2+2?", "answer": 4},
        ["no object"],
        {"question": "", "answer": 4},
        {"question": "3+3?", "answer": None},
        {"question": "4+4?", "answer": " "},
    )
    with pytest.raises(TaskError, match="6 bad line") as caught:
        JsonlTask(path)
    message = str(caught.value)
    assert "line 2: not JSON" in message
    assert "line 3: no field 'question' (it has 'prompt', 'answer')" in message
    assert "line 4: a JSON list" in message
    assert "line 6: 'answer' must be text or a number, not NoneType" in message
    assert "and 1 more" in message
    task = JsonlTask(path, skip_bad=True)
    assert len(task) == 1
    assert [bad.number for bad in task.bad_lines] == [2, 3, 4, 5, 6, 7]


def test_two_lines_of_one_id_are_an_error(tmp_path: Path) -> None:
    line = {"question": "1+1?", "answer": 2, "id": "same"}
    with pytest.raises(TaskError, match="line 2: the id 'bad/same' is taken"):
        JsonlTask(write(tmp_path / "bad.jsonl", line, line))


def test_a_missing_or_useless_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="there is no file"):
        JsonlTask(tmp_path / "none.jsonl")
    with pytest.raises(TaskError, match="It is empty"):
        JsonlTask(write(tmp_path / "empty.jsonl"))
