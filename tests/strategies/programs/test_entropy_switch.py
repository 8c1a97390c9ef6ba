"""Entropy switch: the exact law of who draws what, and what it charges to whom."""

import math

import numpy as np
import pytest

from ramify.backends.base import TokenDetail
from ramify.backends.toy import ToyBackend
from ramify.errors import ConfigError, RequestError
from ramify.strategies import Budget, Prices, parse_strategy
from ramify.strategies.programs.entropy_switch import entropy
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import assert_law, run_many
from tests.strategies.programs.pairs import (
    LARGE,
    MODELS,
    SMALL,
    TEMPERATURE,
    OtherPrompt,
    answers,
    chances,
    grown,
    run_pair,
)

RUNS = 200


def switched(spec, runs=RUNS, **options):
    return run_pair(parse_strategy(f"entropy-switch:small=small,{spec}"), runs, **options)


def true_entropy(model, prefix):
    law = MODELS[model].next_token(prefix)
    return float(-(law[law > 0] * np.log(law[law > 0])).sum())


def exact_law(threshold, stride, window, start):
    """Enumerated: a state is (tokens, model, tokens left of the stride, entropies)."""

    def grow(state):
        tokens, model, left, recent = state
        recent = (*recent, true_entropy(model, tokens))[-window:]
        after, rest = model, left - 1
        if rest == 0:
            after, rest = (None if sum(recent) / len(recent) > threshold else "small"), stride
        return [(((*tokens, t), after, rest, recent), chance, t == 0) for t, chance in chances(model, tokens)]

    return answers(grown({((), start, stride, ()): 1.0}, grow))


@pytest.mark.parametrize("kind", [ToyBackend, OtherPrompt])
@pytest.mark.parametrize(
    ("threshold", "stride", "window", "start"), [(0.6, 1, 1, "small"), (0.7, 1, 2, "large"), (0.6, 2, 1, "small")]
)
def test_who_draws_follows_from_the_entropies_before(threshold, stride, window, start, kind):
    law = exact_law(threshold, stride, window, "small" if start == "small" else None)
    assert max(abs(law[key] - SMALL.law(TEMPERATURE)[key]) for key in law) > 0.05
    spec = f"threshold={threshold},stride={stride},window={window},start={start}"
    assert_law(switched(spec, kind=kind), law)


def test_a_threshold_without_end_leaves_the_small_models_law_and_costs_nothing_of_the_large_one():
    results = switched("threshold=inf,stride=2")
    assert_law(results, SMALL.law(TEMPERATURE))
    assert all(result.best.model == "small" and result.ledger.discarded == 0 for result in results)


def test_a_threshold_of_zero_leaves_the_large_models_law():
    assert_law(switched("threshold=0,start=large,stride=1"), LARGE.law(TEMPERATURE))


def test_tokens_are_charged_to_the_model_that_drew_them():
    per_token = Prices(generated=1e6)
    spec = "threshold=0.6,stride=1,window=1"
    of_small = switched(spec, 40, budget=Budget(prices=Prices(models={"small": per_token})))
    of_large = switched(spec, 40, budget=Budget(prices=Prices(generated=1e6, models={"small": Prices()})))
    both = 0
    for small, large in zip(of_small, of_large, strict=True):
        assert small.best.tokens == large.best.tokens
        assert small.ledger.cost + large.ledger.cost == small.ledger.generated == len(small.best.tokens)
        assert small.ledger.cost >= 1  # it starts
        both += large.ledger.cost > 0
    assert both > 5


def test_the_entropy_counts_what_is_not_shown_as_one_token():
    top = tuple((i, math.log(p)) for i, p in enumerate([0.5, 0.25]))
    assert entropy(TokenDetail(0.0, top)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert entropy(TokenDetail(0.0, ((3, 0.0), (4, -math.inf)))) == 0.0


@pytest.mark.parametrize(
    "spec", ["threshold=0.8,stride=1,window=1", "stride=2,start=large,top=1", "threshold=0.4,max_tokens=3"]
)
def test_it_keeps_the_laws(spec):
    check_strategy(parse_strategy(f"entropy-switch:small=small,{spec}"))


def test_a_model_that_is_not_there_is_missed_before_the_first_token():
    with pytest.raises(RequestError, match="nano-drafter"):
        run_many(parse_strategy("entropy-switch"), 1)


@pytest.mark.parametrize("options", ["threshold=-1", "threshold=nan", "stride=0", "window=0", "top=0", "top=1000"])
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match=options.split("=")[0]):
        parse_strategy(f"entropy-switch:{options}")
