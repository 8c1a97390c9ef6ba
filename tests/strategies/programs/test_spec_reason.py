"""SpecReason: the exact law of drafts and rewritten steps, each judge's number, and what is charged to whom."""

import asyncio
import math

import pytest

from ramify.backends.scripted import ScriptedBackend
from ramify.backends.toy import ToyBackend
from ramify.errors import ConfigError, ScorerError
from ramify.sampling import SamplingParams
from ramify.scoring import Problem
from ramify.strategies import Budget, Prices, describe, parse_strategy, solve
from ramify.strategies.programs.spec_reason import ACCEPT_QUESTION, GRADE_QUESTION, SpecReason, mean_place
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import assert_law
from tests.strategies.programs.pairs import LARGE, SMALL, TEMPERATURE, OtherPrompt, answers, chances, grown, run_pair

RUNS = 200
SHORT = SamplingParams(temperature=0.8, max_tokens=2)


def reward(tokens):
    """Some judgement of a text, never of its end of sequence."""
    return (2 * sum(tokens) + len(tokens)) % 5 / 5


def reasoned(spec, runs=RUNS, **options):
    return run_pair(parse_strategy(f"spec-reason:small=small,{spec}"), runs, reward=reward, **options)


def steps_of(model, prefix):
    """Every step that may follow, with its probability."""

    def grow(state):
        (tokens,) = state
        after = [((*tokens, token), chance) for token, chance in chances(model, tokens)]
        return [((whole,), chance, whole[-1] in (0, 2)) for whole, chance in after]

    return {tokens: mass for (tokens,), mass in grown({(prefix,): 1.0}, grow).items()}


def likelihood(prefix, step):
    """Geometric mean of the large model's probabilities, at temperature 1."""
    logs = [math.log(LARGE.next_token(step[:i])[step[i]]) for i in range(len(prefix), len(step))]
    return math.exp(sum(logs) / len(logs))


def exact_law(judge, threshold, first=0):
    def score(prefix, step):
        if judge == "likelihood":
            return likelihood(prefix, step)
        shown = step[:-1] if step[-1] == 0 else step
        return reward(shown) if shown else 0.0

    def grow(state):
        tokens, steps = state
        law, own = {}, steps_of(None, tokens)
        if steps < first:
            law = own
        else:
            for step, chance in steps_of("small", tokens).items():
                if score(tokens, step) >= threshold:
                    law[step] = law.get(step, 0.0) + chance
                else:
                    for other, mass in own.items():
                        law[other] = law.get(other, 0.0) + chance * mass
        return [((step, steps + 1), chance, step[-1] == 0) for step, chance in law.items()]

    return answers(grown({((), 0): 1.0}, grow))


@pytest.mark.parametrize("kind", [ToyBackend, OtherPrompt])
@pytest.mark.parametrize(("threshold", "first"), [(0.5, 0), (0.0, 1)])
def test_drafts_that_score_enough_stay_and_the_others_are_rewritten(threshold, first, kind):
    law = exact_law("scores", threshold, first)
    assert max(abs(law[key] - LARGE.law(TEMPERATURE)[key]) for key in law) > 0.05
    assert_law(reasoned(f"threshold={threshold},first={first}", kind=kind), law)


def test_the_likelihood_of_a_draft_is_the_large_models():
    law = exact_law("likelihood", 0.4)
    assert max(abs(law[key] - LARGE.law(TEMPERATURE)[key]) for key in law) > 0.05
    assert_law(reasoned("judge=likelihood,threshold=0.4"), law)


def test_a_threshold_of_zero_leaves_the_small_models_law_and_draws_nothing_from_the_large_one():
    results = reasoned("threshold=0")
    assert_law(results, SMALL.law(TEMPERATURE))
    assert all(result.best.model == "small" and result.ledger.discarded == 0 for result in results)


@pytest.mark.parametrize("options", ["threshold=2", "threshold=0,first=9"])
def test_without_drafts_that_stay_it_is_the_large_models_law(options):
    results = reasoned(options)
    assert_law(results, LARGE.law(TEMPERATURE))
    assert all(result.best.model is None for result in results)


def test_tokens_are_charged_to_the_model_that_drew_them():
    one = Prices(generated=1e6)
    of_small = reasoned("threshold=2", 30, budget=Budget(prices=Prices(models={"small": one})))
    for result in of_small:
        assert result.ledger.cost == result.ledger.discarded > 0  # every draft was thrown away
        assert result.ledger.generated == result.ledger.cost + len(result.best.tokens)


def script(call):
    """The large model: rewrites the second line."""
    return "two\nthree\nend" if call.answer.count("\n") else "one\ntwo\nthree\nend"


def drafts(call):
    """The small one: errs in the second line."""
    return ["one\nTWO\nthree\n#### 3", "TWO\nthree\n#### 3", "three\n#### 3", "#### 3"][call.answer.count("\n")]


def told(strategy, odds):
    backend = ScriptedBackend(script, odds=odds, models={"small": drafts})
    return backend, asyncio.run(solve(strategy, Problem("p", "Count."), backend))


@pytest.mark.parametrize(("judge", "question"), [("grade", GRADE_QUESTION), ("accept", ACCEPT_QUESTION)])
def test_the_main_model_is_asked_behind_each_draft_and_rewrites_what_it_finds_wrong(judge, question):
    asked = []
    right, wrong = ("9", "2") if judge == "grade" else ("Yes", "No")

    def odds(call, reply):
        assert call.model is None
        asked.append((call.answer, reply))
        return 0.0 if reply == (wrong if "TWO" in call.answer else right) else -5.0

    backend, result = told(SpecReason(small="small", judge=judge, threshold=0.7), odds)
    assert result.text == "one\ntwo\nthree\n#### 3"
    assert result.answer == 3
    assert [(call.model, call.answer) for call in backend.calls] == [
        ("small", ""), ("small", "one\n"), (None, "one\n"), ("small", "one\ntwo\n"), ("small", "one\ntwo\nthree\n"),
    ]  # fmt: skip
    shown = ["one\n", "one\nTWO\n", "one\ntwo\nthree\n", "one\ntwo\nthree\n#### 3"]
    assert list(dict.fromkeys(answer for answer, _ in asked)) == [text + question[:] for text in shown]
    labels = 10 if judge == "grade" else 2
    assert len(asked) == result.ledger.probe == labels * len(shown)
    assert result.notes == ()


def test_a_judge_that_can_say_none_of_the_labels_is_an_error_and_no_score():
    with pytest.raises(ScorerError, match="labels"):
        told(SpecReason(small="small", judge="accept"), lambda call, reply: -math.inf)


def test_a_grade_is_the_mean_over_the_labels_chances():
    assert mean_place([math.log(0.25), -math.inf, math.log(0.75)]) == pytest.approx(0.75)
    assert mean_place([-3.0, -3.0]) == pytest.approx(0.5)


def test_a_cut_run_has_the_steps_that_were_accepted():
    whole = reasoned("threshold=0.5", 20)
    for result, cut in zip(whole, reasoned("threshold=0.5", 20, budget=Budget(tokens=8)), strict=True):
        assert cut.ledger.total_tokens <= 8
        assert result.best.tokens[: len(cut.best.tokens)] == cut.best.tokens
        assert cut.stop_reason in ("budget", "finished")


@pytest.mark.parametrize(
    "strategy",
    [
        parse_strategy("spec-reason:small=small,threshold=0.5"),
        parse_strategy("spec-reason:small=small,judge=likelihood,threshold=0.3,first=1"),
        SpecReason(small="small", judge="accept", question="", labels=("b\n", "a"), sampling=SHORT, threshold=0.5),
    ],
    ids=describe,
)
def test_it_keeps_the_laws(strategy):
    check_strategy(strategy)


@pytest.mark.parametrize(
    "options",
    [{"threshold": math.nan}, {"first": -1}, {"labels": ("a",)}, {"labels": ("a", "a")}, {"labels": ("a", "")}],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SpecReason(**options)
