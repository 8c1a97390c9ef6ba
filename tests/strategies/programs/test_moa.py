"""Mixture of agents: who is asked what, layer by layer, and what a bad answer does."""

import asyncio
import itertools

import pytest

from ramify.backends.scripted import ScriptedBackend
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError, RequestError
from ramify.scoring import MarkedAnswer, Problem
from ramify.strategies import Budget, Sample, describe, parse_strategy, solve
from ramify.strategies.kernel.trace import Stopped
from ramify.strategies.programs.moa import MixtureOfAgents
from ramify.strategies.testing import check_result, check_strategy
from tests.strategies.laws import BY_TEXT, SMALL, assert_law, run_many

SHORT = {"prompt": "{answers} SO {question}", "item": "<{number}:{answer}>"}


def run(backend, budget=None, **options):
    strategy = MixtureOfAgents(**{**SHORT, **options})
    result = asyncio.run(solve(strategy, Problem("p", "q?"), backend, budget=budget, equivalence=MarkedAnswer()))
    check_result(result, backend)
    return result


def numbered(name):
    """A model that counts its own calls."""
    count = itertools.count()
    return lambda call: f"{name}{(number := next(count))} #### {number}"


def test_each_layer_sees_all_answers_of_the_one_before_it():
    backend = ScriptedBackend(numbered("m"), models={"small": numbered("s"), "chief": numbered("c")})
    result = run(backend, models="main+small", samples=2, aggregator="chief")
    asked = [call.model for call in backend.calls]
    assert sorted(asked[:4], key=str) == [None, None, "small", "small"]  # drawn together
    assert asked[4:] == [None, None, "small", "small", "chief"]
    seen = [call.text for call in backend.calls]
    assert seen[:4] == ["q?"] * 4
    first = "<1:m0 #### 0>\n\n<2:m1 #### 1>\n\n<3:s0 #### 0>\n\n<4:s1 #### 1> SO q?"
    second = "<1:m2 #### 2>\n\n<2:m3 #### 3>\n\n<3:s2 #### 2>\n\n<4:s3 #### 3> SO q?"
    assert seen[4:] == [first] * 4 + [second]
    assert result.text == "c0 #### 0"
    assert (result.ledger.generated, result.ledger.program, result.ledger.verifier) == (4 * 3, 5 * 3, 0)
    assert len(result.candidates) == 9


def test_two_layers_are_proposers_and_an_aggregator():
    backend = ScriptedBackend(numbered("m"))
    result = run(backend, layers=2, samples=3)
    assert [call.text for call in backend.calls[:3]] == ["q?"] * 3
    assert len(backend.calls) == 4
    assert result.text == "m3 #### 3"


def test_one_layer_is_a_plain_sample():
    sampled = [result.best.tokens for result in run_many(Sample(), 60)]
    alone = MixtureOfAgents(layers=1)
    assert [result.best.tokens for result in run_many(alone, 60)] == sampled
    assert_law(run_many(alone, 300), SMALL.law(0.8))


def test_an_agent_that_says_nothing_is_left_out_and_noted():
    backend = ScriptedBackend(numbered("m"), models={"mute": lambda call: ""})
    result = run(backend, layers=3, models="main+mute", samples=1)
    assert [call.text for call in backend.calls[2:]] == ["<1:m0 #### 0> SO q?"] * 2 + ["<1:m1 #### 1> SO q?"]
    assert result.notes == (
        "generator: 1 of 2 answers are empty or cut: later layers do not see them",
        "fuser: 1 of 2 fused answers are empty or cut",
    )


@pytest.mark.parametrize("said", ["", "I would rather not."])
def test_an_aggregator_without_an_answer_leaves_the_proposers_vote(said):
    replies = ["#### 1", "#### 2", "#### 2", said]
    result = run(ScriptedBackend(lambda call: replies[call.index]), layers=2)
    assert str(result.answer) == "2"
    assert result.notes


def test_a_budget_cut_anywhere_gives_the_best_so_far():
    total = run(ScriptedBackend(numbered("m")), samples=2).ledger.total_tokens
    for tokens in range(1, total):
        result = run(ScriptedBackend(numbered("m")), Budget(tokens=tokens), samples=2)
        assert result.ledger.total_tokens <= tokens
        assert result.stop_reason == "budget"
        assert (result.answer is not None) == (tokens >= 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": 0}, "layers=0"),
        ({"samples": 0}, "samples=0"),
        ({"models": "main+"}, "models='main\\+'"),
        ({"models": "a b"}, "model='a b'"),
        ({"aggregator": ""}, "aggregator=''"),
        ({"prompt": "{question}"}, "answers"),
        ({"item": "{number}"}, "answer"),
    ],
)
def test_options_that_do_not_work_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        MixtureOfAgents(**options)


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(RequestError, match="'large'"):
        run(ScriptedBackend(numbered("m")), models="large")


def test_its_spec_makes_it_again():
    strategy = parse_strategy("moa:layers=2,models=main+nano-drafter,aggregator=nano-drafter,samples=2")
    assert parse_strategy(describe(strategy)) == strategy
    assert strategy.models == "main+nano-drafter"


def test_two_models_of_uneven_speed_give_one_answer_per_seed():
    def outcome(pace, batch_size, budget):
        models = {"small": ToyModel.random(1)}
        backend = ToyBackend(ToyModel.random(0), pace=pace, batch_size=batch_size, max_model_len=24, models=models)
        strategy = MixtureOfAgents(
            models="main+small", samples=2, aggregator="small", prompt="{answers}", item="{answer}"
        )
        result = asyncio.run(solve(strategy, Problem("p", "xy"), backend, budget=budget, equivalence=BY_TEXT))
        check_result(result, backend)
        events = [event for event in result.trace.events if not isinstance(event, Stopped)]
        return result.best.key, result.text, result.notes, result.ledger.total_tokens, events

    for budget in (None, Budget(tokens=13)):
        expected = outcome(None, None, budget)
        for salt in range(4):
            assert outcome(lambda key, salt=salt: 1 + key.low % (3 + salt), [None, 1, 3, 7][salt], budget) == expected


@pytest.mark.parametrize("options", [{"layers": 3, "samples": 2}, {"layers": 2}, {"layers": 1}])
def test_the_laws_of_every_strategy_hold(options):
    check_strategy(MixtureOfAgents(prompt="{answers}", item="{answer}", **options))
