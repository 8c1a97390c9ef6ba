"""What a call asks for, from the model's name and from the body's field; and what it may not ask for."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import pytest

from ramify import registry
from ramify.scoring import GenerativeVerifier, MeanLogprob, ProcessReward
from ramify.scoring.equivalence import MarkedAnswer, NumberAnswer
from ramify.serving.errors import ApiError
from ramify.serving.limits import Limits
from ramify.serving.methods.bounds import budget_of, check_bounds
from ramify.serving.methods.request import Requested, requested
from ramify.serving.protocol.ramify_field import RamifyField
from ramify.strategies import BestOfN, ParticleFilter, Prices


def asked(name: str = "nano", seed: int | None = None, **field: Any) -> Requested | None:
    return requested(name, RamifyField.model_validate(field) if field else None, seed)


def method(name: str = "nano", **field: Any) -> Requested:
    found = asked(name, **field)
    assert found is not None
    check_bounds(found, found.strategy(), Limits())
    return found


def refusal(name: str = "nano", **field: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        method(name, **field)
    assert caught.value.status == 400
    return caught.value


def test_a_plain_call_asks_for_no_method():
    assert asked("nano") is None
    assert asked("nano", branch_key="0" * 32, child=3) is None


def test_a_name_says_all_of_it():
    found = method("nano@particle-filter:n=16,tokens=4096,seconds=2.5,seed=7,agg=min")
    assert (found.model, found.limits, found.seed) == ("nano", {"tokens": 4096, "seconds": 2.5}, 7)
    assert found.strategy() == ParticleFilter(n=16, scorer=ProcessReward(agg="min"))


@pytest.mark.parametrize(
    "field",
    [
        {"strategy": "best-of-n:n=4,agg=min,select=weighted"},
        {"strategy": "best-of-n", "params": {"n": 4, "agg": "min", "select": "weighted"}},
        {"strategy": "best-of-n:n=4", "params": {"select": "weighted"}, "scorer": "prm:agg=min"},
        {"strategy": "best-of-n:n=4,select=weighted", "scorer": {"type": "prm", "agg": "min"}},
        {"strategy": "best-of-n:n=4,select=weighted", "scorer": {"agg": "min"}},
    ],
)
def test_the_field_says_the_same_in_several_ways(field):
    assert method(**field).strategy() == BestOfN(n=4, select="weighted", scorer=ProcessReward(agg="min"))


def test_options_can_stand_beside_a_method_that_the_name_gives():
    found = method("nano@best-of-n:n=4", params={"select": "soft"}, budget=900, candidates=True, equivalence="number")
    assert found.strategy() == BestOfN(n=4, select="soft")
    assert (found.limits, found.candidates, found.equivalence) == ({"tokens": 900}, True, NumberAnswer())


@pytest.mark.parametrize(
    ("scorer", "made"),
    [
        ("nano-prm", ProcessReward("nano-prm")),
        ("my-own-prm", ProcessReward("my-own-prm")),
        ("logprob", MeanLogprob()),
        ({"type": "prm", "model": "other", "marks": 1}, ProcessReward("other", marks=1)),
        ({"type": "generative-verifier", "yes": "Yes, it is"}, GenerativeVerifier(yes="Yes, it is")),
    ],
)  # fmt: skip
def test_a_scorer_is_a_reward_model_or_a_scorer_with_options(scorer, made):
    assert method(strategy="best-of-n", scorer=scorer).strategy().scorer == made


def test_a_reward_model_goes_to_a_scorer_that_has_one_where_the_usual_scorer_has_none():
    assert method(strategy="confidence-vote", scorer="nano-prm").strategy().scorer == ProcessReward("nano-prm")


def test_texts_are_taken_as_they_are():
    found = method(strategy="moa", params={"item": " a\\n, {number} {answer}\n"})
    assert found.strategy().item == " a\\n, {number} {answer}\n"


def test_without_an_equivalence_marked_answers_are_compared():
    assert method(strategy="self-consistency").equivalence == MarkedAnswer()


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("nano@", {}, "unknown strategy ''"),
        ("nano@best-of-m", {}, "did you mean 'best-of-n'"),
        ("nano@beam@beam", {}, "unknown strategy 'beam@beam'"),
        ("nano@best-of-n:n", {}, "'n' in 'best-of-n:n' is no option"),
        ("nano@best-of-n:n=four", {}, "best-of-n:n='four' does not work: it must be a whole number"),
        ("nano@best-of-n:nn=4", {}, "unknown option of best-of-n 'nn'; did you mean 'n'"),
        ("nano@best-of-n:tokens=4k", {}, "tokens='4k' does not work: write a whole number"),
        ("nano@best-of-n:tokens=1e3", {}, "tokens='1e3' does not work"),
        ("nano@best-of-n:tokens=0", {}, "tokens=0 does not work: a budget is above 0"),
        ("nano@best-of-n:seconds=inf", {}, "seconds='inf' does not work"),
        ("nano@best-of-n:seconds=-1", {}, "seconds='-1' does not work"),
        ("nano@best-of-n:seed=1.5", {}, "seed='1.5' does not work"),
        ("nano@sample:n=3", {}, "unknown option of sample 'n'"),
        ("nano@beam:m=3,temperature=nan", {}, "must be a number"),
        ("nano@sample:temperature=inf", {}, "temperature=inf does not work"),
        ("nano@sample:" + "x" * 20_000, {}, "has 20,007 characters"),
        ("nano@beam", {"strategy": "beam"}, "each name a method: keep one"),
        ("nano@beam:tokens=5", {"budget": 6}, "tokens is given twice"),
        ("nano@beam:n=5", {"params": {"n": 5}}, "n is given twice"),
        ("nano@best-of-n:seed=1", {"seed": 2}, "the call gives seeds 1, 2: keep one"),
        ("nano", {"params": {"n": 4}}, "ramify.params belongs to a method"),
        ("nano", {"budget": 4}, "ramify.budget belongs to a method"),
        ("nano", {"candidates": True}, "ramify.candidates belongs to a method"),
        ("nano", {"strategy": "beam", "params": {"tokens": 4}}, "give it as ramify.budget.tokens"),
        ("nano", {"strategy": "beam", "params": {"seed": 4}}, "give it as the body's seed"),
        ("nano", {"strategy": "beam", "params": {"n": 4.5}}, "beam:n='4.5' does not work"),
        ("nano", {"strategy": "beam", "params": {"n": True}}, "beam:n='true' does not work"),
        ("nano", {"strategy": "beam", "params": {"n": 10**400}}, "does not work"),
        ("nano", {"strategy": "beam", "scorer": "logprob:x=1"}, "unknown option of logprob 'x'"),
        ("nano", {"strategy": "beam", "scorer": "prn:agg=min"}, "unknown scorer 'prn'; did you mean 'prm'"),
        ("nano", {"strategy": "beam:scorer=prm", "scorer": "prm"}, "are both given"),
        ("nano", {"strategy": "self-consistency", "scorer": "prm"}, "self-consistency takes no scorer"),
        ("nano", {"strategy": "beam", "equivalence": "code"}, "unknown equivalence 'code'"),
        ("nano", {"strategy": "beam", "equivalence": "numbr"}, "did you mean 'number'"),
    ],
)
def test_what_does_not_work_is_refused_with_its_value_and_the_remedy(name, field, words):
    assert words in refusal(name, **field).message


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("nano@best-of-n:n=1000", {}, "n=1000 of best-of-n does not work: this server allows 256 at most"),
        ("nano@beam:n=16,m=4,iters=100000", {}, "iters=100000"),
        ("nano@archon:layers=generator:9999/fuser", {}, "number=9999"),
        ("nano@generative-verifier", {}, "unknown strategy"),
        ("nano", {"strategy": "best-of-n", "scorer": {"type": "generative-verifier", "votes": 999}}, "votes=999"),
        ("nano", {"strategy": "particle-filter", "params": {"steps": 10**9}}, "steps=1000000000"),
        ("nano@calibrated-prm:calibration=/etc/passwd", {}, "names a file of the server"),
        ("nano@smc-steering:regex=@/etc/passwd", {}, "which no client may choose: give the text itself"),
        ("nano", {"strategy": "smc-steering", "params": {"grammar": "@/etc/passwd"}}, "names a file of the server"),
        ("nano@best-of-n:scorer=tests", {}, "runs programs that the model writes"),
        ("nano@archon:layers=generator:2/code-tests/evaluator", {}, "runs programs that the model writes"),
    ],
)  # fmt: skip
def test_a_client_gets_no_large_counts_no_files_and_no_programs(name, field, words):
    assert words in refusal(name, **field).message


def test_no_option_of_any_method_opens_a_file(monkeypatch):
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    for place in ("pathlib.Path.read_text", "pathlib.Path.read_bytes", "builtins.open"):
        monkeypatch.setattr(place, opened)
    for entry in registry.techniques("strategy"):
        texts = [name for name, kind in registry.option_types(entry.factory).items() if "str" in str(kind)]
        for name, text in itertools.product(texts, ("/etc/passwd", "@/etc/passwd")):
            with suppress(ApiError):
                asked("nano", strategy=entry.name, params={name: text})


def test_every_method_stays_within_the_bounds_by_itself():
    for entry in registry.techniques("strategy"):
        assert method("nano", strategy=entry.name).name == entry.name


def test_a_budget_is_bounded_by_the_server_also_where_none_is_given():
    limits = Limits(max_method_tokens=500)
    assert budget_of(method(strategy="beam"), limits, None, None).tokens == 500
    assert budget_of(method(strategy="beam", budget=400), limits, None, 3.0).seconds == 3.0
    assert budget_of(method(strategy="beam", budget={"seconds": 2}), limits, None, 3.0).seconds == 2.0
    with pytest.raises(ApiError, match="this server gives 500 at most"):
        budget_of(method(strategy="beam", budget=501), limits, None, None)


def test_dollars_need_prices():
    spends = method("nano@beam:dollars=0.5")
    with pytest.raises(ApiError, match="has no prices"):
        budget_of(spends, Limits(), None, None)
    assert budget_of(spends, Limits(), Prices(generated=1.0), None).dollars == 0.5
