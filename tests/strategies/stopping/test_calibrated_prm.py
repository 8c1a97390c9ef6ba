"""Calibrated PRM: as many answers as reach the target, from a low quantile of the first steps' chances."""

import math
from collections import Counter

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.scoring.calibration import CalibrationMap
from ramify.strategies import parse_strategy
from ramify.strategies.stopping.calibrated_prm import UNCALIBRATED, low_quantile, samples_needed
from ramify.strategies.testing import check_strategy
from tests.strategies.laws import SMALL, assert_law, run_many

RUNS = 40
WARM = SMALL.law(temperature=0.8)


def first_step_reward(tokens):
    """Tells first steps and answers apart."""
    return (1 + sum((place + 2) * token for place, token in enumerate(tokens)) % 5) / 8


@pytest.mark.parametrize("p", [0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("target", [0.5, 0.75, 0.875, 0.95, 0.99])
def test_the_number_needed_is_the_least_that_reaches_the_target(p, target):
    n = samples_needed(p, target, 10_000)
    assert 1 - (1 - p) ** n >= target - 1e-9
    assert n == 1 or 1 - (1 - p) ** (n - 1) < target


def test_the_number_needed_at_its_edges():
    assert samples_needed(0.5, 0.875, 16) == 3, "exactly reached"
    assert samples_needed(0.5, math.nextafter(0.875 + 1e-6, 1), 16) == 4
    assert (samples_needed(0.0, 0.9, 16), samples_needed(1.0, 0.9, 16), samples_needed(0.9, 0.9, 16)) == (16, 1, 1)
    assert samples_needed(0.01, 0.99, 16) == 16


def test_the_low_quantile_is_one_of_the_numbers_and_on_the_safe_side():
    chances = np.array([0.9, 0.2, 0.5, 0.7])
    assert [low_quantile(chances, q) for q in (0, 0.1, 0.34, 0.5, 1)] == [0.2, 0.2, 0.5, 0.5, 0.9]


@pytest.mark.parametrize(("first", "quantile", "target"), [(4, 0.1, 0.9), (3, 0.5, 0.7), (2, 0.0, 0.9)])
def test_it_draws_as_many_answers_as_the_first_steps_say(first, quantile, target):
    spec = f"calibrated-prm:n=12,first={first},quantile={quantile},target={target},until=1"
    numbers = set()
    for result in run_many(parse_strategy(spec), RUNS, reward=first_step_reward):
        tree = result.trace.tree()
        begun = tree[1 : first + 1]
        assert all(node.parent == 0 for node in begun)
        chances = sorted(node.scores["ProcessReward"] for node in begun)
        p = chances[math.floor(quantile * (first - 1))]
        expected = min(12, max(1, math.ceil(math.log(1 - target) / math.log(1 - p))))
        assert len(result.candidates) == expected
        dropped = [node.scores["ProcessReward"] for node in begun if node.status == "dropped"]
        kept = [node.scores["ProcessReward"] for node in begun if node.status != "dropped"]
        assert len(kept) == min(first, expected)
        assert min(kept) >= max(dropped, default=0)
        assert result.best.key == max(result.candidates, key=lambda c: c.score).node.key
        numbers.add(expected)
    assert len(numbers) >= 2


def test_a_calibration_map_decides_how_many(tmp_path):
    CalibrationMap((0.0, 1.0), (0.25, 0.25), 1).save(tmp_path / "quarter.json")
    spec = f"calibrated-prm:n=16,target=0.9,calibration={tmp_path / 'quarter.json'}"
    for result in run_many(parse_strategy(spec), 10, reward=first_step_reward):
        assert len(result.candidates) == 9  # 0.75^8 > 0.1 > 0.75^9
        assert result.notes == ()
        assert {candidate.score for candidate in result.candidates} <= {n / 8 for n in range(1, 6)}


def test_without_a_map_the_result_says_so():
    assert run_many(parse_strategy("calibrated-prm:n=2"), 1)[0].notes == (UNCALIBRATED,)


@pytest.mark.parametrize("p", [0.1, 0.6])
def test_a_constant_reward_leaves_the_law_unchanged(p):
    results = run_many(parse_strategy("calibrated-prm:n=5,first=3,until=1,target=0.9"), 160, reward=lambda tokens: p)
    assert_law(results, WARM)
    assert Counter(len(result.candidates) for result in results) == {samples_needed(p, 0.9, 5): 160}


def test_one_answer_follows_the_models_law():
    assert_law(run_many(parse_strategy("calibrated-prm:n=1,until=1"), 160, reward=first_step_reward), WARM)


def test_what_was_not_drawn_shows_as_saved():
    for result in run_many(parse_strategy("calibrated-prm:n=16,first=2"), 20, reward=lambda tokens: 0.9):
        assert len(result.candidates) == 2
        assert result.ledger.saved > 0


@pytest.mark.parametrize("spec", ["calibrated-prm:n=9"])
def test_it_keeps_the_laws(spec):
    check_strategy(parse_strategy(spec))


@pytest.mark.parametrize(
    "options",
    ["n=0", "first=0", "target=0", "target=1", "quantile=-0.1", "quantile=2", "scorer=logprob", "calibration=/no/map"],
)
def test_options_that_do_not_work_are_refused(options):
    with pytest.raises(ConfigError):
        parse_strategy(f"calibrated-prm:{options}")
