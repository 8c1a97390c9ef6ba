"""DeepConf: thresholds, what is stopped, who votes with what weight, and scale."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError
from ramify.scoring import KeyedBy, Problem
from ramify.strategies import Sample, SelfConsistency, StepSplitter, parse_strategy, solve
from ramify.strategies.kernel.trace import Dropped
from ramify.strategies.stopping.deepconf import DeepConf
from ramify.strategies.testing import BY_TEXT, check_strategy
from tests.strategies.laws import run_many

EVERY_TOKEN = StepSplitter(max_tokens=1)
SAME = KeyedBy(lambda text, problem: "same")
NOTHING = KeyedBy(lambda text, problem: None)
MODEL = ToyModel.random(3, depth=5)


def small(**options):
    return DeepConf(**{"n": 8, "warmup": 4, "window": 1, "batch": 2, "until": EVERY_TOKEN, "consensus": 1.0, **options})


def lowest(node, window):
    """The definition, written out for the toy model's table."""
    confidences = []
    for at in range(len(node.tokens)):
        with np.errstate(divide="ignore"):
            logprobs = np.maximum(np.log(MODEL.next_token(node.tokens[:at])), -100)
        confidences.append(-logprobs.mean())
    size = min(window, len(confidences))
    return min(np.mean(confidences[i : i + size]) for i in range(len(confidences) - size + 1))


def test_the_threshold_is_a_percentile_of_the_warm_up():
    assert DeepConf(filter="low").threshold(range(11)) == 9
    assert DeepConf(filter="high").threshold(range(11)) == 1


def test_the_warm_up_alone_is_self_consistencys_draws():
    voted = [[c.node.tokens for c in r.candidates] for r in run_many(SelfConsistency(n=4), 15)]
    assert [[c.node.tokens for c in r.candidates] for r in run_many(small(n=4), 15)] == voted


def test_one_trace_is_plain_sampling():
    sampled = [result.text for result in run_many(Sample(), 50)]
    assert [result.text for result in run_many(DeepConf(n=1), 50)] == sampled


@pytest.mark.parametrize("window", [1, 2, 2048])
def test_a_candidates_score_is_the_mean_of_its_lowest_group(window):
    for result in run_many(small(window=window, filter="high"), 20, model=MODEL):
        for candidate in result.candidates:
            assert candidate.score == pytest.approx(lowest(candidate.node, window))


@pytest.mark.parametrize("chosen", ["low", "high"])
def test_only_traces_at_or_above_the_threshold_vote(chosen):
    for result in run_many(small(filter=chosen), 15, model=MODEL):
        threshold = np.percentile([c.score for c in result.candidates[:4]], {"low": 90, "high": 10}[chosen])
        for candidate in result.candidates:
            assert candidate.weight == (candidate.score if candidate.score >= threshold else 0)
        if result.best.key in {c.node.key for c in result.candidates if c.weight == 0}:
            assert not any(c.weight and c.answer is not None for c in result.candidates)


def test_a_stopped_trace_is_dropped_while_it_runs_and_counted_as_discarded():
    stopped = 0
    for result in run_many(small(filter="low"), 15, model=MODEL):
        dropped = {node for event in result.trace.events if isinstance(event, Dropped) for node in event.nodes}
        stopped += len(dropped)
        assert (result.ledger.discarded > 0) == bool(dropped)
        if result.stop_reason == "finished":
            assert len(result.candidates) + len(dropped) == 8
    assert stopped > 10


def test_the_high_filter_stops_fewer_traces_than_the_low_one():
    tokens = {
        chosen: sum(r.ledger.discarded for r in run_many(small(filter=chosen), 15, model=MODEL))
        for chosen in ("low", "high")
    }
    assert tokens["high"] < tokens["low"]


def test_agreement_after_the_warm_up_ends_the_run_and_the_rest_counts_as_saved():
    for result in run_many(small(filter="high", consensus=0.95), 20, equivalence=SAME):
        assert len(result.candidates) == 4
        assert result.stop_reason == "certain"
        assert result.ledger.saved > 0


def test_one_voting_trace_is_no_agreement():
    for result in run_many(small(filter="low", warmup=1, n=3), 20, equivalence=SAME):
        voting = sum(candidate.weight > 0 for candidate in result.candidates)
        assert (result.stop_reason == "certain") == (voting > 1)


def test_answers_that_cannot_be_read_neither_vote_nor_agree():
    for result in run_many(small(filter="high"), 20, equivalence=NOTHING):
        assert result.answer is None
        assert result.stop_reason == "finished"


class Scaled(ToyBackend):
    """Reports all log-probabilities in another unit (a power of two: no rounding)."""

    def _detail(self, *arguments):
        detail = super()._detail(*arguments)
        return replace(detail, top=tuple((token, max(logprob, -100) / 4) for token, logprob in detail.top))


@pytest.mark.parametrize("weights", ["confidence", "rank", "equal"])
def test_the_unit_of_confidences_changes_neither_who_is_stopped_nor_the_vote(weights):
    strategy = small(weights=weights, consensus=0.8, n=12)
    for seed in range(6):
        problem = Problem(str(seed), "xy")
        results = [
            asyncio.run(solve(strategy, problem, kind(MODEL, max_model_len=24), equivalence=BY_TEXT))
            for kind in (ToyBackend, Scaled)
        ]
        assert results[0].best.tokens == results[1].best.tokens
        assert [c.node.tokens for c in results[0].candidates] == [c.node.tokens for c in results[1].candidates]


@pytest.mark.parametrize(
    "options", [{"n": 0}, {"warmup": 0}, {"window": 0}, {"top": 0}, {"batch": 0}, {"consensus": 0}]
)
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError):
        DeepConf(**options)


@pytest.mark.parametrize(
    "spec", ["deepconf:n=6,warmup=3,window=2,until=1,batch=2", "deepconf:n=7,warmup=3,filter=high,until=2,weights=rank"]
)
def test_it_keeps_the_laws_of_all_strategies(spec):
    check_strategy(parse_strategy(spec))
