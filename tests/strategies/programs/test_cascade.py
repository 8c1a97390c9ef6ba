"""Cascade: which model's answer is believed, exactly, and that nobody dearer is asked for nothing."""

import asyncio

import pytest

from ramify.backends.scripted import ScriptedBackend
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError, RequestError, ScorerError
from ramify.scoring import KeyedBy, Problem
from ramify.strategies import Budget, Prices, Sample, parse_strategy, solve, solve_many
from ramify.strategies.programs.cascade import Cascade, learned_threshold
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import BY_TEXT, assert_law, problems, run_many
from tests.strategies.programs.pairs import LARGE, SMALL, TEMPERATURE, run_pair

RUNS = 300
EVERYTHING = KeyedBy(lambda text, problem: text)
"""Only the empty answer cannot be read."""


def cascaded(spec, runs=RUNS, **options):
    return run_pair(parse_strategy(f"cascade:cheaper=small,{spec}"), runs, equivalence=EVERYTHING, **options)


def readable(model):
    """The law of a model's answers, and the chance of the one that cannot be read."""
    law = dict(model.law(TEMPERATURE))
    return law, law[(0,)]


def test_without_a_threshold_any_readable_answer_of_the_small_model_is_believed():
    law, empty = readable(SMALL)
    large, _ = readable(LARGE)
    expected = {key: (law[key] if key != (0,) else 0.0) + empty * large[key] for key in large}
    # Where both are empty the small model's is as good: it has the same tokens.
    results = cascaded("threshold=0,k=1")
    assert_law(results, expected)
    certain = [result for result in results if result.stop_reason == "certain"]
    assert len(certain) > 200
    assert all(result.best.model == "small" and len(result.candidates) == 1 for result in certain)


def test_above_every_confidence_the_main_model_answers_as_if_it_were_alone():
    alone = run_many(Sample(), RUNS, model=LARGE, equivalence=EVERYTHING)
    for result, sampled in zip(cascaded("threshold=2,k=2"), alone, strict=True):
        if sampled.answer is not None:
            assert result.best.tokens == sampled.best.tokens
            assert result.best.model is None
            assert result.stop_reason == "finished"
        assert len(result.candidates) == 3


def test_two_answers_that_agree_are_believed():
    law, _ = readable(SMALL)
    large, empty = readable(LARGE)
    agree = {key: chance**2 for key, chance in law.items() if key != (0,)}
    apart = 1 - sum(agree.values())
    results = cascaded("threshold=1,k=2")
    believed = [result for result in results if result.best.model == "small" and len(result.candidates) == 2]
    assert abs(len(believed) - RUNS * (1 - apart)) < 4 * (RUNS * apart * (1 - apart)) ** 0.5
    assert_law(believed, {key: chance / (1 - apart) for key, chance in agree.items()})
    passed = [result for result in results if result.best.model is None and result.answer is not None]
    assert_law(passed, {key: chance / (1 - empty) for key, chance in large.items() if key != (0,)})


def test_the_score_decides_and_is_the_one_of_the_best_answer():
    def reward(tokens):
        return (sum(tokens) + len(tokens)) % 4 / 4

    for result in cascaded("confidence=scores,threshold=0.75,k=3,last=2", 100, reward=reward):
        of_small = [c.node for c in result.candidates if c.node.model == "small" and c.answer is not None]
        scores = [reward(node.tokens) for node in of_small]
        assert (result.stop_reason == "certain") == (max(scores, default=0) >= 0.75)
        assert len(result.candidates) == (3 if result.stop_reason == "certain" else 5)
        if result.stop_reason == "certain":
            assert result.best is of_small[scores.index(max(scores))]


def test_the_likelihood_is_the_mean_over_an_answers_tokens():
    for result in cascaded("confidence=likelihood,threshold=0.5,k=2", 60):
        small = [c.node for c in result.candidates if c.node.model == "small" and c.answer is not None]
        sure = [2.718281828459045 ** (node.cum_logprob / node.num_tokens) for node in small]
        assert (result.stop_reason == "certain") == (max(sure, default=0) >= 0.5)


def test_models_are_asked_in_their_order_and_charged_by_themselves():
    models = {"tiny": ToyModel.random(5, SMALL.texts), "small": SMALL}
    one = Prices(generated=1e6)
    strategy = parse_strategy("cascade:cheaper=tiny+small,threshold=0.9+0.4,k=2")

    def run(prices):
        backend = ToyBackend(LARGE, max_model_len=24, models=models)
        found = solve_many(strategy, problems(60), backend, budget=Budget(prices=prices), equivalence=BY_TEXT)
        return asyncio.run(found)

    of_tiny, of_small = run(Prices(models={"tiny": one})), run(Prices(models={"small": one}))
    stages = set()
    for tiny, small in zip(of_tiny, of_small, strict=True):
        drawn = [candidate.node for candidate in tiny.candidates]
        assert [node.model for node in drawn] == ["tiny", "tiny", "small", "small", None][: len(drawn)]
        assert tiny.ledger.cost == sum(len(node.tokens) for node in drawn[:2])
        assert small.ledger.cost == sum(len(node.tokens) for node in drawn[2:4])
        assert tiny.ledger.discarded == 0
        stages.add(len(drawn))
    assert stages == {2, 4, 5}


def test_every_model_reads_the_problem_and_where_none_can_be_read_the_surest_is_taken():
    backend = ScriptedBackend(
        lambda call: "I do not know.", models={"small": lambda call: f"#### {call.index % 2}", "tiny": lambda call: ""}
    )
    strategy = Cascade(cheaper="tiny+small", threshold=0.9, k=3)
    result = asyncio.run(solve(strategy, Problem("p", "How many?"), backend))
    assert [call.model for call in backend.calls] == ["tiny"] * 3 + ["small"] * 3 + [None]
    assert {call.text for call in backend.calls} == {"How many?"}
    assert result.answer == 1  # calls 3 and 5 of 3 to 5 say so
    assert result.best.model == "small"
    assert result.stop_reason == "finished"


def test_a_scorer_that_fails_is_no_confidence():
    def fails(tokens):
        raise ValueError("broken")

    with pytest.raises(ScorerError, match="broken"):
        cascaded("confidence=scores", 1, reward=fails)


def test_a_model_that_is_not_there_is_missed_before_the_first_token():
    with pytest.raises(RequestError, match="other"):
        run_pair(parse_strategy("cascade:cheaper=small+other"), 1)


def test_a_learned_threshold_is_the_best_on_its_problems():
    confidences = [0.2, 0.4, 0.6, 0.8]
    right, after = [False, False, True, True], [True, True, True, False]
    assert learned_threshold(confidences, right, after) == 0.6  # all four right
    assert learned_threshold(confidences, right, after, price=2.0) == 0.0  # too dear to ask anybody
    assert learned_threshold(confidences, [False] * 4, [True] * 4) > 0.8
    assert learned_threshold(confidences, [True] * 4, [True] * 4) == 0.0
    with pytest.raises(ConfigError, match="one of each"):
        learned_threshold([0.5], [True, False], [True])


@pytest.mark.parametrize(
    "spec",
    ["k=3", "confidence=scores,threshold=0.8,k=2,last=2", "confidence=likelihood,threshold=0.4,k=2"],
)
def test_it_keeps_the_laws(spec):
    check_strategy(parse_strategy(f"cascade:cheaper=small,{spec}"))


@pytest.mark.parametrize(
    "options",
    [
        "k=0",
        "last=0",
        "cheaper=",
        "cheaper=a+",
        "cheaper=a+a",
        "threshold=-1",
        "threshold=much",
        "threshold=0.1+0.2",
        "confidence=scores,scorer=logprob",
    ],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        parse_strategy(f"cascade:{options}")
