"""Calibration: the isotonic map of least error, what it reports, and that it is kept as it was fitted."""

import asyncio

import numpy as np
import pytest
from scipy import optimize

from ramify.backends.base import Node
from ramify.errors import ConfigError, ScorerError
from ramify.evals.pools import draw_pool
from ramify.evals.replay import sample_score
from ramify.randomness import BranchKey
from ramify.sampling import SamplingParams
from ramify.scoring import MeanLogprob, Problem, ProcessReward, Reading, RuleCheck, ScoreBatch, Scorer
from ramify.scoring.calibration import IDENTITY, CalibratedScorer, CalibrationMap, reliability
from ramify.scoring.scorers import checked_scores
from tests.evals.toy_task import PROBLEMS, ToyTask, make_backend

GENERATOR = np.random.default_rng(0)


def squared_error(values, correct):
    return float(((values - np.asarray(correct, dtype=float)) ** 2).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("levels", [3, 1000])
def test_the_map_is_the_isotonic_one_of_least_squared_error(count, levels):
    if not hasattr(optimize, "isotonic_regression"):
        pytest.skip("scipy before 1.12 has no isotonic regression to compare with")
    scores = GENERATOR.integers(0, levels, count) / levels
    correct = GENERATOR.random(count) < scores
    fitted = CalibrationMap.fit(scores, correct)
    unique, place = np.unique(scores, return_inverse=True)
    weights = np.bincount(place)
    means = np.bincount(place, weights=correct) / weights
    exact = optimize.isotonic_regression(means, weights=weights).x
    assert fitted(unique) == pytest.approx(exact, abs=1e-12)
    assert fitted.fitted_to == count


def test_a_map_never_changes_the_order_of_two_scores_and_stays_between_0_and_1():
    scores = GENERATOR.random(200)
    fitted = CalibrationMap.fit(scores, GENERATOR.random(200) < scores**2)
    values = fitted(np.linspace(-1, 2, 301))
    assert (np.diff(values) >= 0).all()
    assert values.min() >= 0
    assert values.max() <= 1
    assert fitted([-5.0]) == fitted([scores.min()])
    assert fitted([5.0]) == fitted([scores.max()])


def test_it_makes_an_overconfident_score_honest():
    chances = GENERATOR.random(4000)
    correct = GENERATOR.random(4000) < chances
    overconfident = np.sqrt(chances)
    fitted = CalibrationMap.fit(overconfident[:2000], correct[:2000])
    before = reliability(overconfident[2000:], correct[2000:])
    after = reliability(fitted(overconfident[2000:]), correct[2000:])
    assert before.ece > 0.1 > 0.06 > after.ece
    assert after.brier < before.brier
    assert after.accuracy == before.accuracy


def test_on_its_own_answers_a_map_has_no_calibration_error_left_over():
    scores = GENERATOR.integers(0, 5, 60) / 5
    correct = GENERATOR.random(60) < 0.5
    fitted = CalibrationMap.fit(scores, correct)
    assert reliability(fitted(scores), correct, bins=1).ece == pytest.approx(0, abs=1e-12)
    assert squared_error(fitted(scores), correct) <= squared_error(np.full(60, correct.mean()), correct) + 1e-12


def test_the_report_is_what_its_formulas_say():
    found = reliability([0.1, 0.2, 0.9, 0.95, 1.0], [False, True, True, True, False], bins=2)
    low, high = abs(0.5 - 0.15), abs(2 / 3 - 0.95)
    assert found.ece == pytest.approx((2 * low + 3 * high) / 5)
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.01 + 0.0025 + 1.0) / 5)
    assert (found.count, found.accuracy, found.confidence) == (5, pytest.approx(0.6), pytest.approx(0.63))
    assert reliability([1.0, 0.0], [True, False]).ece == 0


def test_a_map_is_read_back_as_it_was_written(tmp_path):
    scores = GENERATOR.random(30)
    fitted = CalibrationMap.fit(scores, GENERATOR.random(30) < scores)
    fitted.save(tmp_path / "map.json")
    assert CalibrationMap.load(tmp_path / "map.json") == fitted
    assert hash(CalibrationMap.load(tmp_path / "map.json")) == hash(fitted)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b'{"scores": [1, 0], "probabilities": [0, 1]}', b'{"scores": [0, 1], "probabilities": [0, 2]}',
     b'{"scores": [0], "probabilities": [0, 1]}', b'{"scores": [], "probabilities": []}', b'{"knots": []}'],
)  # fmt: skip
def test_a_file_that_holds_no_map_is_refused(tmp_path, content):
    path = tmp_path / "map.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError):
        CalibrationMap.load(path)


@pytest.mark.parametrize(
    ("scores", "correct"), [([], []), ([0.5], []), ([np.nan], [True]), ([np.inf, 0], [True, False])]
)
def test_what_cannot_be_fitted_is_refused(scores, correct):
    with pytest.raises(ConfigError):
        CalibrationMap.fit(scores, correct)
    with pytest.raises(ConfigError):
        reliability(scores, correct)


def test_a_report_on_what_is_no_probability_is_refused():
    with pytest.raises(ConfigError, match="no probabilities"):
        reliability([-0.5], [True])
    with pytest.raises(ConfigError, match="bins=0"):
        reliability([0.5], [True], bins=0)


def node(logprobs):
    return Node(BranchKey(0, 0), tokens=(1,) * len(logprobs), token_logprobs=logprobs)


def test_a_calibrated_scorer_keeps_the_contract_and_the_cost():
    fitted = CalibrationMap((-3.0, -1.0), (0.2, 0.6), 9)
    scorer = CalibratedScorer(MeanLogprob(), fitted)
    assert isinstance(scorer, Scorer)
    assert hash(scorer) == hash(CalibratedScorer(MeanLogprob(), fitted))
    assert scorer.needs == MeanLogprob().needs
    assert scorer.range == (0.2, 0.6)
    nodes = [node((-2.0,)), node((-9.0,)), node((-0.5,))]
    batch = asyncio.run(checked_scores(scorer, nodes, Problem("p", "?"), None))
    assert list(batch.values) == pytest.approx([0.4, 0.2, 0.6])
    prm = CalibratedScorer(ProcessReward())
    assert prm.cost(Reading(10, 9, 5, True)) == ProcessReward().cost(Reading(10, 9, 5, True))
    assert prm.map == IDENTITY


def test_a_fault_of_the_scorer_underneath_is_not_hidden_by_the_map():
    class Broken(RuleCheck):
        async def score(self, nodes, problem, backend):
            return ScoreBatch(np.array([1.5]))

    with pytest.raises(ScorerError, match="Broken"):
        asyncio.run(checked_scores(CalibratedScorer(Broken()), [node(())], Problem("p", "?"), None))


def test_scores_without_a_map_must_be_probabilities():
    with pytest.raises(ConfigError, match="fit a CalibrationMap"):
        CalibratedScorer(MeanLogprob())


async def test_a_map_is_fitted_to_a_stored_pool(tmp_path):
    pool = await draw_pool(
        tmp_path / "pool.jsonl", ToyTask(), PROBLEMS, make_backend(),
        model="toy", n=20, params=SamplingParams(max_tokens=8), reward_models=["toy-prm"],
    )  # fmt: skip
    samples = [sample for group in pool.samples.values() for sample in group]
    scores = [sample_score(sample, "toy-prm", "last") for sample in samples]
    correct = [sample.correct for sample in samples]
    fitted = CalibrationMap.fit(scores, correct)
    assert reliability(fitted(scores), correct).brier <= reliability(np.clip(scores, 0, 1), correct).brier


def test_a_calibrated_confidence_still_gets_the_details_that_it_reads():
    from ramify.scoring.confidence import DeepConf

    assert CalibratedScorer(DeepConf(), CalibrationMap((0.0, 20.0), (0.0, 1.0))).logprobs == DeepConf().logprobs > 0
