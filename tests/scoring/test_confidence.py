"""Confidence scorers: the definitions by hand, and against the toy model's own tables."""

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.backends.base import Node, TokenDetail
from ramify.backends.toy import ToyBackend, ToyModel
from ramify.errors import ConfigError, ScorerError
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring import MeanLogprob, Problem
from ramify.scoring.confidence import (
    SUREST,
    DeepConf,
    InversePerplexity,
    SelfCertainty,
    details_for,
    group_confidences,
    self_certainty,
    token_confidences,
    trace_confidence,
)
from ramify.scoring.scorers import checked_scores

ROOT = Node(BranchKey(0, 0))


def node_of(*details, logprobs=None):
    tokens = tuple(range(len(details)))
    known = tuple(detail.logprob for detail in details) if logprobs is None else logprobs
    return Node(BranchKey(0, 1), ROOT, tokens, "x", (), known, "stop", num_new_tokens=len(tokens), details=details)


def detail(*top, mean=-2.0):
    return TokenDetail(top[0], tuple(enumerate(top)), mean)


def test_a_tokens_confidence_is_minus_the_mean_of_its_likeliest_log_probabilities():
    node = node_of(detail(-0.5, -1.5, -4.0), detail(-1.0, -2.0, -3.0))
    np.testing.assert_allclose(token_confidences(node, top=3), [2.0, 2.0])
    np.testing.assert_allclose(token_confidences(node, top=2), [1.0, 1.5])


def test_self_certainty_is_the_mean_over_tokens_of_the_mean_over_the_vocabulary():
    assert self_certainty(node_of(detail(-1.0, mean=-3.0), detail(-1.0, mean=-5.0))) == 4.0


def test_self_certainty_is_the_divergence_from_uniform_up_to_the_vocabularys_logarithm():
    law = np.array([0.7, 0.2, 0.1])
    divergence = float(np.sum(np.log((1 / 3) / law)) / 3)
    assert self_certainty(node_of(detail(-1.0, mean=float(np.log(law).mean())))) == pytest.approx(
        divergence + math.log(3)
    )


def test_a_surer_distribution_has_the_higher_confidence():
    flat, sharp = (
        detail(*[math.log(0.25)] * 4, mean=math.log(0.25)),
        detail(*np.log([0.97, 0.01, 0.01, 0.01]), mean=-3.4),
    )
    assert self_certainty(node_of(sharp)) > self_certainty(node_of(flat))
    assert token_confidences(node_of(sharp), 4)[0] > token_confidences(node_of(flat), 4)[0]


def test_a_token_that_the_model_rules_out_does_not_make_a_confidence_infinite():
    node = node_of(TokenDetail(0.0, ((0, 0.0), (1, -math.inf)), -math.inf))
    assert self_certainty(node) == SUREST
    assert token_confidences(node, 2)[0] == SUREST / 2


@settings(max_examples=60)
@given(st.lists(st.floats(0, 50), min_size=1, max_size=30), st.integers(1, 12))
def test_groups_are_the_means_of_every_run_of_a_window(values, window):
    array = np.array(values)
    runs = [array[i : i + window].mean() for i in range(max(1, len(array) - window + 1))]
    np.testing.assert_allclose(group_confidences(array, window), runs)
    assert trace_confidence(array, "lowest", window) == pytest.approx(min(runs))
    assert trace_confidence(array, "tail", window) == pytest.approx(array[-window:].mean())
    assert trace_confidence(array, "mean", window) == pytest.approx(array.mean())
    count = max(1, len(runs) // 10)
    assert trace_confidence(array, "bottom", window) == pytest.approx(np.mean(sorted(runs)[:count]))


def test_an_answer_shorter_than_the_window_is_one_group_whatever_is_measured():
    array = np.array([1.0, 5.0, 3.0])
    assert {trace_confidence(array, measure, 2048) for measure in ("mean", "tail", "bottom", "lowest")} == {3.0}
    assert trace_confidence(np.array([]), "lowest") == 0.0


def test_what_is_measured_on_the_toy_model_is_what_its_table_says():
    model = ToyModel.random(2)
    backend = ToyBackend(model)

    async def draw():
        root = await backend.root("xy", BranchKey.root(1))
        return [node async for node in backend.extend(root, SamplingParams(max_tokens=8, logprobs=4), 6)]

    for node in asyncio.run(draw()):
        rows = [model.next_token(node.tokens[:at]) for at in range(len(node.tokens))]
        with np.errstate(divide="ignore"):
            logs = [np.maximum(np.log(row), -SUREST) for row in rows]
        np.testing.assert_allclose(token_confidences(node, 2), [-np.sort(log)[-2:].mean() for log in logs])
        assert self_certainty(node) == pytest.approx(-np.mean([log.mean() for log in logs]))


SCORERS = [SelfCertainty(), DeepConf(top=2), InversePerplexity()]


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_scorer_keeps_the_contract(scorer):
    node = node_of(detail(-0.5, -1.0), detail(-0.1, -3.0))
    batch = asyncio.run(checked_scores(scorer, [node, node], Problem("p", "x"), ToyBackend(ToyModel.random())))
    assert batch.num_tokens == 0
    assert batch.values[0] == batch.values[1] > 0


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_node_drawn_without_what_is_read_raises_and_is_never_scored(scorer):
    bare = Node(BranchKey(0, 1), ROOT, (1, 2), "x", (), None, "stop", num_new_tokens=2)
    with pytest.raises(ScorerError, match="logprobs="):
        asyncio.run(checked_scores(scorer, [bare], Problem("p", "x"), ToyBackend(ToyModel.random())))


def test_inverse_perplexity_is_the_geometric_mean_of_the_probabilities():
    node = node_of(detail(math.log(0.5)), detail(math.log(0.125)))
    batch = asyncio.run(InversePerplexity().score([node], Problem("p", "x"), ToyBackend(ToyModel.random())))
    assert batch.values[0] == pytest.approx(0.25)


def test_a_scorer_says_how_its_nodes_have_to_be_drawn():
    assert details_for(DeepConf(top=7)) == {"logprobs": 7}
    assert details_for(SelfCertainty()) == {"logprobs": 1}
    assert details_for(MeanLogprob()) == {}


@pytest.mark.parametrize(
    ("options", "named"), [({"window": 0}, "window=0"), ({"top": 0}, "top=0"), ({"top": 999}, "top=999")]
)
def test_options_that_do_not_work_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        DeepConf(**options)
