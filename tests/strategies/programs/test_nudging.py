"""Nudging: the exact law of an answer in which a second model writes where the first is unsure."""

import re

import pytest

from ramify.backends.toy import ToyBackend
from ramify.errors import ConfigError
from ramify.strategies import Budget, Prices, parse_strategy
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import assert_law
from tests.strategies.programs.pairs import LARGE, SMALL, TEMPERATURE, OtherPrompt, answers, chances, grown, run_pair

RUNS = 200


def nudged(spec, runs=RUNS, **options):
    return run_pair(parse_strategy(f"nudging:small=small,{spec}"), runs, **options)


def exact_law(threshold, words, limit):
    """Enumerated: a state is (tokens, place where the running nudge began or None)."""

    def grow(state):
        tokens, start = state
        if start is None and LARGE.next_token(tokens).max() < threshold:
            start = len(tokens)
        model = None if start is None else "small"
        after = []
        for token, chance in chances(model, tokens):
            whole = (*tokens, token)
            written = "" if start is None else SMALL.text(whole[start:])
            done = start is None or len(whole) - start == limit or len(re.findall(r"\S\s", written)) >= words
            after.append(((whole, None if done else start), chance, token == 0))
        return after

    return answers(grown({((), None): 1.0}, grow))


@pytest.mark.parametrize("kind", [ToyBackend, OtherPrompt])
@pytest.mark.parametrize(("threshold", "words", "limit", "stride"), [(0.6, 1, 16, 16), (0.7, 2, 2, 1), (0.7, 1, 1, 2)])
def test_unsure_places_are_the_small_models_and_all_others_the_large_ones(threshold, words, limit, stride, kind):
    law = exact_law(threshold, words, limit)
    assert max(abs(law[key] - LARGE.law(TEMPERATURE)[key]) for key in law) > 0.05
    assert_law(nudged(f"threshold={threshold},words={words},nudge_tokens={limit},stride={stride}", kind=kind), law)


def test_a_threshold_of_zero_leaves_the_large_models_law():
    results = nudged("threshold=0,stride=2")
    assert_law(results, LARGE.law(TEMPERATURE))
    assert all(result.best.model is None and result.ledger.discarded == 0 for result in results)


def test_a_threshold_above_one_leaves_the_small_models_law():
    results = nudged("threshold=2,stride=2")
    assert_law(results, SMALL.law(TEMPERATURE))
    assert all(result.best.model == "small" for result in results)


def test_tokens_that_were_taken_back_are_charged_and_shown_as_discarded():
    one = Prices(generated=1e6)
    results = nudged("threshold=2,stride=1", 30, budget=Budget(prices=Prices(models={"small": one})))
    for result in results:
        assert result.ledger.cost == len(result.best.tokens)  # the small model's tokens make the answer
        assert result.ledger.generated > result.ledger.cost  # and each nudge cost a look of the large one
        assert result.ledger.discarded == result.ledger.generated - result.ledger.cost


@pytest.mark.parametrize("spec", ["threshold=0.6", "threshold=2,stride=2", "threshold=0.7,nudge_tokens=1,max_tokens=3"])
def test_it_keeps_the_laws(spec):
    check_strategy(parse_strategy(f"nudging:small=small,{spec}"))


@pytest.mark.parametrize("options", ["threshold=-1", "threshold=nan", "words=0", "nudge_tokens=0", "stride=0"])
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match=options.split("=")[0]):
        parse_strategy(f"nudging:{options}")
