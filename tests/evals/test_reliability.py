"""ECE and Brier of a stored pool's scores: by hand, with a map, and on problems the map was not fitted to."""

import asyncio
import math

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.evals.pools import Pool, Sample, draw_pool
from ramify.evals.reliability import fit_map, halves, pool_reliability
from ramify.sampling import SamplingParams
from ramify.scoring import DeepConf, Ensemble, InversePerplexity, MeanLogprob, ProcessReward
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend

PRM = ProcessReward("prm", agg="min")


def sample(problem, index, score, correct):
    return Sample(
        problem, index, "", (1,), None, correct, math.log(score), "stop", 1, 1, steps={"prm": (1.0, score)}
    )  # fmt: skip


def pool(*scores_and_outcomes):
    """One problem for each pair of samples."""
    samples = {}
    for place, (score, correct) in enumerate(scores_and_outcomes):
        name = f"p{place // 2}"
        samples.setdefault(name, []).append(sample(name, place % 2, score, correct))
    return Pool({"reward_models": ["prm"]}, samples)


def test_they_are_the_numbers_of_their_definitions():
    found = pool_reliability(pool((0.9, True), (0.95, False), (0.2, False), (0.3, True)), PRM)
    assert found.count == 4
    assert found.brier == pytest.approx((0.01 + 0.9025 + 0.04 + 0.49) / 4)
    assert found.ece == pytest.approx((abs(1 - 1.85) + 0.2 + 0.7) / 4)
    same = pool_reliability(pool((0.9, True), (0.95, False), (0.2, False), (0.3, True)), InversePerplexity())
    assert same.brier == pytest.approx(found.brier)


def test_a_map_that_was_fitted_to_a_pool_has_no_error_there():
    drawn = pool(*[(0.5 + place / 100, place % 4 != 0) for place in range(40)])
    fitted = fit_map(drawn, MeanLogprob())
    assert fitted.fitted_to == 40
    assert pool_reliability(drawn, MeanLogprob(), fitted).ece < 1e-9
    with pytest.raises(ConfigError, match="CalibrationMap"):
        pool_reliability(drawn, MeanLogprob())


def test_halves_split_by_problem_and_keep_all():
    drawn = pool(*[(0.5, True)] * 42)
    first, second = halves(drawn)
    assert (len(first.samples), len(second.samples)) == (10, 11)
    assert {*first.samples} | {*second.samples} == {*drawn.samples}
    assert {*halves(drawn, 1)[0].samples} != {*first.samples}
    assert {*halves(drawn)[0].samples} == {*first.samples}


def test_of_a_drawn_pool(tmp_path):
    params = SamplingParams(temperature=1.0, max_tokens=8)
    drawn = asyncio.run(
        draw_pool(
            tmp_path / "pool.jsonl", ToyTask(), PROBLEMS, make_backend(), model="toy", n=6, params=params,
            reward_models=["toy-prm"],
        )
    )  # fmt: skip
    scorer = ProcessReward("toy-prm")
    found = pool_reliability(drawn, scorer)
    samples = [one for several in drawn.samples.values() for one in several]
    scores = np.array([one.steps["toy-prm"][-1] for one in samples])
    assert found.brier == pytest.approx(np.mean((scores - [one.correct for one in samples]) ** 2))
    assert found.accuracy == pytest.approx(np.mean([one.correct for one in samples]))
    assert pool_reliability(drawn, scorer, fit_map(drawn, scorer)).brier <= found.brier


def test_what_a_pool_does_not_hold_is_refused():
    drawn = pool((0.5, True), (0.6, False))
    for scorer, named in [
        (ProcessReward("other"), "no scores of 'other'"),
        (DeepConf(), "DeepConf"),
        (Ensemble(), "each member"),
    ]:
        with pytest.raises(ConfigError, match=named):
            pool_reliability(drawn, scorer)
