"""`ramify recommend`: a table or JSON, resumed from its files, and refusals that say what to do."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, json_lines

QUIZ = "".join(f'{{"question": "{i} + 1 = ?", "answer": {i + 1}}}\n' for i in range(9))
SMALL = ("--samples", "4", "--reward-model", "", "-e", "max_model_len=40", "-o", "out")


@pytest.fixture
def quiz(tmp_path: Path) -> str:
    (tmp_path / "quiz.jsonl").write_text(QUIZ)
    return "quiz.jsonl"


def test_it_explains_itself(run: Run) -> None:
    shown = run("recommend", "--help")
    assert shown.exit_code == 0
    assert "--osca" in shown.stdout


def test_methods_get_a_curve_each_and_a_budget_gets_one_that_is_judged_on_other_problems(
    run: Run, model: str, quiz: str, tmp_path: Path
) -> None:
    arguments = ("recommend", quiz, "-m", model, "-s", "self-consistency", "-s", "beam:m=2,scorer=logprob", *SMALL)
    result = run(*arguments, "--budgets", "60,200", "--json")
    assert result.exit_code == 0, result.stderr
    [data] = json_lines(result.stdout)
    assert data["problems"] == {"train": 3, "test": 3}
    assert {one["method"]: one["live"] for one in data["methods"]} == {
        "self-consistency": False,
        "beam:m=2,scorer=logprob": True,
    }
    for one in data["methods"]:
        assert [point["tokens"] for point in one["points"]] == sorted(point["tokens"] for point in one["points"])
    for one in data["advice"]:
        assert one["tokens"] <= one["budget"]
        assert 0 <= one["measured"]["mean"] <= 1
    assert json.loads((tmp_path / "out" / "recommend.json").read_text()) == data
    shown = run(*arguments, "--budgets", "60,200")
    assert "measured" in shown.stdout
    assert data["advice"][0]["method"] in shown.stdout
    assert json.loads((tmp_path / "out" / "recommend.json").read_text()) == data


def test_osca_shares_a_budget_among_temperatures(run: Run, model: str, quiz: str, tmp_path: Path) -> None:
    arguments = ("recommend", quiz, "-m", model, "--osca", "--temperatures", "0.5,1", *SMALL)
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    [data] = json_lines(result.stdout)
    assert data["temperatures"] == [0.5, 1.0]
    for row in data["allocations"]:
        assert len(row["counts"]) == 2
        assert row["cost"] <= row["budget"] * (1 + 1e-9)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "osca.json", *(f"{part}-{t}.jsonl" for part in ("train", "validation", "test") for t in ("0.5", "1"))
    }  # fmt: skip
    assert "best single" in run(*arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown task 'nothing'"),
        (["countdown", "--osca", "-s", "beam"], "takes no --strategy"),
        (["countdown", "--osca", "--temperatures", "hot"], "numbers above 0"),
        (["countdown", "--budgets", "30s"], "numbers above 0"),
        (["countdown", "-p", "1"], "at least 2"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(run: Run, arguments: list[str], message: str) -> None:
    result = run("recommend", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
