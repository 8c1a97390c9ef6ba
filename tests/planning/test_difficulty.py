"""The table's choices are the best mixtures of its options, and bins follow the predictor alone."""

import itertools

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.planning.difficulty import DifficultyPlan, Table, best_option, upper_hull


def table(seed: int, problems: int = 40, options: int = 5) -> Table:
    rng = np.random.default_rng(seed)
    cost = np.sort(rng.uniform(10, 200, size=options))[None, :] * np.ones((problems, 1))
    return Table(tuple(f"o{i}" for i in range(options)), rng.random((problems, options)), cost)


def test_the_hull_holds_the_points_that_no_mixture_of_others_reaches() -> None:
    cost = np.array([10.0, 20.0, 30.0, 40.0, 15.0, 50.0])
    accuracy = np.array([0.2, 0.5, 0.55, 0.9, 0.1, 0.9])
    assert upper_hull(cost, accuracy) == [0, 1, 3]
    assert upper_hull(np.array([1.0, 1.0]), np.array([0.3, 0.4])) == [1]
    assert upper_hull(np.array([1.0, 2.0, 3.0]), np.array([0.25, 0.5, 0.75])) == [0, 2]


@pytest.mark.parametrize("seed", range(5))
def test_no_way_of_choosing_an_option_a_bin_is_better_for_as_little(seed: int) -> None:
    made = table(seed)
    predicted = np.random.default_rng(seed + 100).random(40)
    plan = DifficultyPlan.fit(predicted, made, bins=3)
    place = plan.bins(predicted)
    rows = np.arange(40)
    for choice in plan.choices:
        accuracy, cost = plan.judge(predicted, made, choice.cost)
        assert accuracy.mean() == pytest.approx(choice.accuracy)
        assert cost.mean() == pytest.approx(choice.cost)
        for options in itertools.product(range(5), repeat=3):
            chosen = np.array(options)[place]
            if made.cost[rows, chosen].mean() <= choice.cost + 1e-9:
                assert made.accuracy[rows, chosen].mean() <= choice.accuracy + 1e-9


def test_more_budget_is_never_worse_in_training_and_bins_beat_one_choice_for_all() -> None:
    made = table(1)
    plan = DifficultyPlan.fit(np.arange(40.0), made)
    accuracies = [choice.accuracy for choice in plan.choices]
    assert accuracies == sorted(accuracies)
    assert [choice.cost for choice in plan.choices] == sorted(choice.cost for choice in plan.choices)
    top = plan.choices[-1]
    assert top.accuracy >= made.means()[0][best_option(made, top.cost)]


def test_easy_problems_get_the_cheap_option_and_hard_ones_the_dear_one() -> None:
    predicted = np.array([0.1] * 10 + [0.9] * 10)
    cheap = np.where(predicted > 0.5, 0.9, 0.1)
    dear = np.where(predicted > 0.5, 0.9, 0.6)
    made = Table(("cheap", "dear"), np.stack([cheap, dear], axis=1), np.array([[10.0, 50.0]] * 20))
    plan = DifficultyPlan.fit(predicted, made, bins=2)
    assert plan.edges == (0.9,)
    assert [plan.names[option] for option in plan.choice(30).options] == ["dear", "cheap"]
    assert plan.choice(100).cost == pytest.approx(30)


def test_equal_predictions_make_one_bin_and_only_the_order_counts() -> None:
    made = table(2)
    assert DifficultyPlan.fit([0.5] * 40, made).edges == ()
    predicted = np.random.default_rng(0).random(40)
    one, other = DifficultyPlan.fit(predicted, made), DifficultyPlan.fit(np.exp(5 * predicted), made)
    assert one.choices == other.choices


def test_what_cannot_work_is_refused() -> None:
    made = table(0)
    with pytest.raises(ConfigError, match="one each"):
        DifficultyPlan.fit([0.5] * 39, made)
    with pytest.raises(ConfigError, match="one each"):
        DifficultyPlan.fit([float("nan")] * 40, made)
    with pytest.raises(ConfigError, match="too small"):
        DifficultyPlan.fit([0.5] * 40, made).choice(1)
    with pytest.raises(ConfigError, match="too small"):
        best_option(made, 1)
    with pytest.raises(ConfigError, match="options have names"):
        Table(("a",), np.zeros((2, 2)), np.ones((2, 2)))
    with pytest.raises(ConfigError, match="shape"):
        Table(("a",), np.zeros((2, 1)), np.ones((3, 1)))
