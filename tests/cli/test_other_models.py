"""Methods of several models, from the commands and the library: what they name is loaded, and more on request."""

import pytest

from ramify import LLM
from ramify.errors import RequestError
from ramify.scoring import Problem
from tests.cli.conftest import Run, json_lines

SMALL = "max_tokens=12,threshold=1,stride=3,window=1,top=5"


def test_solve_loads_the_models_that_a_strategy_names(run: Run, model: str) -> None:
    [found] = json_lines(
        run("solve", "a b", "-m", model, "-s", f"entropy-switch:small={model},{SMALL}", "--json").stdout
    )
    assert found["ledger"]["generated"] > 0
    with LLM(model) as llm:
        same = llm.solve(Problem("1", "a b"), f"entropy-switch:small={model},{SMALL}")
    assert same.text == found["text"]


def test_solve_loads_other_models_on_request(run: Run, model: str) -> None:
    asked = ("solve", "a b", "-m", model, "-s", "sample:max_tokens=3", "--json")
    plain, more = run(*asked), run(*asked, "--other-model", model)
    assert json_lines(plain.stdout)[0]["text"] == json_lines(more.stdout)[0]["text"]
    missing = run(*asked, "--other-model", "no-such-model")
    assert missing.exit_code == 3
    assert "no-such-model" in missing.stderr


def test_eval_loads_the_models_that_its_strategies_name(run: Run, model: str) -> None:
    specs = ("-s", f"entropy-switch:small={model},{SMALL}", "-s", "sample:max_tokens=4")
    found = run("eval", "-t", "countdown", "-p", "2", "-m", model, *specs, "--json")
    assert found.exit_code == 0, found.stderr
    assert len(json_lines(found.stdout)[0]["rows"]) == 2


def test_models_given_to_the_library_are_the_ones_that_are_there(model: str) -> None:
    with LLM(model) as llm, pytest.raises(RequestError, match="load it too"):
        llm.solve("a b", f"entropy-switch:small={model},{SMALL}", models=[])
