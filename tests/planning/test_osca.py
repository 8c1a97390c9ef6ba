"""OSCA finds the best counts of small spaces, keeps greedy's guarantee, and never looks at what it is judged on."""

import itertools
import math

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.planning.osca import Outcomes, allocate, best_single, pass_at, solved


def outcomes(seed: int, problems: int = 20, settings: int = 3, n: int = 16) -> Outcomes:
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.5, 1.0, size=(problems, settings))
    return Outcomes(rng.binomial(n, rates).astype(np.int64), np.full((problems, settings), n, dtype=np.int64))


def affordable(costs: list[float], budget: float, most: int) -> list[tuple[int, ...]]:
    ranges = [range(min(most, int(budget // cost)) + 1) for cost in costs]
    return [counts for counts in itertools.product(*ranges) if np.dot(counts, costs) <= budget]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("costs", [[1.0, 1.0, 1.0], [1.0, 2.5, 4.0]])
def test_small_spaces_are_solved_as_by_brute_force(seed: int, costs: list[float]) -> None:
    train = outcomes(seed)
    found = allocate(train, costs, 10)
    best = max(float(solved(train.probabilities, counts).mean()) for counts in affordable(costs, 10, 16))
    assert found.cost <= 10
    assert found.expected == pytest.approx(best, rel=2e-3)
    assert found.expected >= (1 - 1 / math.e) * best


def test_it_is_never_worse_in_training_than_the_best_setting_alone() -> None:
    for seed in range(20):
        train, costs = outcomes(seed, settings=4), [1.0, 1.3, 2.0, 3.1]
        assert allocate(train, costs, 12).expected >= best_single(train, costs, 12).expected - 1e-12


def test_settings_that_solve_different_problems_are_mixed() -> None:
    correct = np.array([[16, 0], [0, 16]] * 5)
    train = Outcomes(correct, np.full_like(correct, 16))
    assert allocate(train, [1.0, 1.0], 4).counts == (2, 2)
    assert pass_at(train, (2, 2)).mean() == 1.0
    assert pass_at(train, best_single(train, [1.0, 1.0], 4).counts).mean() == 0.5


def test_the_judge_is_the_mean_over_all_choices_of_samples() -> None:
    right = [[True, False, False, True], [False, False, True, False, False]]
    made = Outcomes(np.array([[2, 1]]), np.array([[4, 5]]))
    for counts in [(0, 0), (1, 0), (2, 3), (3, 1), (0, 5)]:
        first = list(itertools.combinations(right[0], counts[0]))
        second = list(itertools.combinations(right[1], counts[1]))
        exact = np.mean([any(a) or any(b) for a in first for b in second])
        assert pass_at(made, counts)[0] == pytest.approx(exact)


def test_smoothing_is_that_of_jeffreys_prior() -> None:
    made = Outcomes(np.array([[0, 3]]), np.array([[4, 3]]))
    assert made.probabilities.tolist() == [[0.5 / 5, 3.5 / 4]]


def test_restarts_are_chosen_on_validation_problems_and_the_test_split_plays_no_part() -> None:
    train, validation = outcomes(1, problems=6), outcomes(2, problems=40)
    costs = [1.0, 1.7, 2.3]
    found = allocate(train, costs, 9, validation)
    assert found.validated == pytest.approx(pass_at(validation, found.counts).mean())
    assert found.validated >= pass_at(validation, allocate(train, costs, 9).counts).mean()
    # A validation split that only one setting can solve pulls the choice away from what training says.
    only_last = np.zeros_like(validation.correct)
    only_last[:, 2] = 16
    pulled = allocate(train, costs, 9, Outcomes(only_last, validation.drawn))
    assert pulled.counts[2] >= 1


def test_the_same_seed_gives_the_same_counts_and_the_order_of_problems_plays_no_part() -> None:
    train, validation = outcomes(3), outcomes(4)
    order = np.random.default_rng(0).permutation(20)
    shuffled = Outcomes(train.correct[order], train.drawn[order])
    first = allocate(train, [1, 2, 3], 11, validation, seed=5)
    assert first.counts == allocate(shuffled, [1, 2, 3], 11, validation, seed=5).counts


def test_counts_stay_within_the_samples_that_there_are() -> None:
    train = outcomes(0, n=3)
    assert all(count <= 3 for count in allocate(train, [1.0, 1.0, 1.0], 100).counts)


def test_what_cannot_work_is_refused() -> None:
    train = outcomes(0)
    with pytest.raises(ConfigError, match="buys no sample"):
        allocate(train, [2.0, 3.0, 4.0], 1)
    with pytest.raises(ConfigError, match="buys no sample"):
        best_single(train, [2.0, 3.0, 4.0], 1)
    with pytest.raises(ConfigError, match="one above 0"):
        allocate(train, [1.0, 0.0, 1.0], 5)
    with pytest.raises(ConfigError, match="cannot be judged"):
        pass_at(train, (17, 0, 0))
    with pytest.raises(ConfigError, match="shape"):
        Outcomes(np.zeros((2, 2), dtype=np.int64), np.ones((2, 3), dtype=np.int64))
    with pytest.raises(ConfigError, match="no more right"):
        Outcomes(np.full((1, 1), 3), np.full((1, 1), 2))
