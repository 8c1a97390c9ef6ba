"""Thinking mode: no thinking, or at most so many tokens of it."""

from collections import Counter

import numpy as np
import pytest

from ramify.backends.toy import ToyModel
from ramify.errors import ConfigError
from ramify.scoring import Problem
from ramify.strategies import describe, parse_strategy
from ramify.strategies.length.budget_forcing import BudgetForcing
from ramify.strategies.length.thinking_mode import ThinkingMode
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import chi_square, run_many
from tests.strategies.length.test_budget_forcing import one, written

MODEL = ToyModel.random(5)
TOY = {"start_think": "a", "end_think": "b\n", "answer_prefix": "", "empty": ""}
WARM = ThinkingMode().sampling.with_(temperature=1.0)
TEXTS = ("", "a", "b\n", "c\n")


def mode(effort, **options):
    """Thinking mode in the toy model's words."""
    return ThinkingMode(**{**TOY, **options}, effort=effort, sampling=WARM)


def test_none_opens_and_closes_thinking_at_once_and_the_answer_follows_the_models_law():
    results = run_many(mode("none"), 400, model=MODEL)
    closed = (1, 2)
    assert all(result.best.tokens[:2] == closed for result in results)
    law = {}
    for token, chance in enumerate(MODEL.conditional(closed)):
        behind = (
            {(0,): 1.0}
            if token == 0
            else {(token, last): p for last, p in enumerate(MODEL.conditional((*closed, token)))}
        )
        for tail, p in behind.items():
            path = (*closed, *((0,) if token == 0 else tail))
            law[path] = law.get(path, 0.0) + chance * p
    law = {path: p for path, p in law.items() if p > 0}
    assert np.isclose(sum(law.values()), 1.0)
    assert chi_square(Counter(result.best.tokens for result in results), law, 400) > 1e-3


def test_none_only_closes_what_the_prompt_has_opened():
    model = written(TEXTS, [1, 2, 3], then={(2,): 1, (2, 1): 0})
    assert one(mode("none"), model, Problem("p", [9, 1])).text == "b\na"
    assert one(mode("none"), model, Problem("p", [9, 1, 2])).text == "ab\nc\n"
    assert one(mode("none", empty="c\n"), written(TEXTS, []), Problem("p", [9])).text == "ac\nb\n"


@pytest.mark.parametrize(("effort", "limit"), [("low", 1), ("medium", 2), ("high", 4)])
def test_an_effort_is_budget_forcing_at_its_limit(effort, limit):
    limited = mode(effort, low=1, medium=2, high=4)
    forcing = BudgetForcing(start_think="a", end_think="b\n", answer_prefix="", max_think=limit, sampling=WARM)
    tokens = [[r.best.tokens for r in run_many(method, 60, model=MODEL)] for method in (limited, forcing)]
    assert tokens[0] == tokens[1]


def test_more_effort_thinks_longer():
    model = written(TEXTS, [3] * 30)
    texts = [one(mode(effort, low=2, medium=5, high=9), model).text for effort in ("low", "medium", "high")]
    assert texts == ["c\n" * n + "b\n" for n in (2, 5, 9)]


@pytest.mark.parametrize("effort", ["none", "low"])
def test_it_keeps_the_laws_of_every_strategy(effort):
    check_strategy(mode(effort, low=2, answer_tokens=3))


def test_specs_and_bad_options():
    method = parse_strategy("thinking-mode:effort=none,start_think=,empty=,end_think=\\n####,answer_prefix=\\x20")
    assert (method.effort, method.forced, method.empty) == ("none", "\n#### ", "")
    assert parse_strategy(describe(method)) == method
    with pytest.raises(ConfigError, match="choose from none, low, medium, high"):
        parse_strategy("thinking-mode:effort=some")
    with pytest.raises(ConfigError, match="in order"):
        ThinkingMode(low=9, medium=8)
