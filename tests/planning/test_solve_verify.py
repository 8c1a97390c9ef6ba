"""A split is measured as it would run: by voting without verdicts, by their means with them."""

import itertools
import math

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.evals.estimators import best_of_n_at_k, maj_at_k
from ramify.planning.solve_verify import Split, Verified, accuracy_of, best_split, grid, growth, tokens_of

ANSWERS = ("a", "b", "b", None, "a", "b")
CORRECT = (True, False, False, False, True, False)


def problem(verdicts: np.ndarray, solution: float = 30.0, verification: float = 10.0) -> Verified:
    return Verified(ANSWERS, CORRECT, verdicts, solution, verification)


def synthetic(seed: int, accuracy: float, rate: float = 0.4, n: int = 16, most: int = 8) -> Verified:
    """Wrong answers all agree; a verdict is right with probability `accuracy`."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) < rate
    says = rng.random((n, most)) < accuracy
    verdicts = np.where(correct[:, None], says, ~says).astype(float)
    return Verified(tuple("y" if ok else "n" for ok in correct), tuple(map(bool, correct)), verdicts, 40.0, 20.0)


@pytest.mark.parametrize("samples", [1, 2, 4, 6])
def test_without_verification_the_samples_vote(samples: int) -> None:
    found = accuracy_of(problem(np.zeros((6, 2))), samples, 0, subsets=2000)
    assert found == pytest.approx(maj_at_k(ANSWERS, CORRECT, samples), abs=0.03)


def test_with_one_certain_verdict_the_best_score_is_best_of_n() -> None:
    scores = np.array([0.2, 0.9, 0.1, 0.0, 0.5, 0.3])
    for samples in (2, 3):
        found = accuracy_of(problem(scores[:, None]), samples, 1, "best", subsets=2000)
        readable = [score if answer is not None else -1.0 for score, answer in zip(scores, ANSWERS, strict=True)]
        assert found == pytest.approx(best_of_n_at_k(readable, CORRECT, samples), abs=0.03)


def test_a_split_is_the_mean_over_choices_of_samples_and_verdicts() -> None:
    verdicts = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 1], [0, 0]], dtype=float)
    made = problem(verdicts)
    outcomes = []
    for i, j in itertools.permutations(range(6), 2):
        for u, v in itertools.product(range(2), repeat=2):
            totals: dict[str, float] = {}
            for place, verdict in ((i, u), (j, v)):
                if ANSWERS[place] is not None:
                    totals[str(ANSWERS[place])] = totals.get(str(ANSWERS[place]), 0.0) + verdicts[place, verdict]
            winner = max(totals, key=lambda name: totals[name])  # the first of equals, as in a vote
            outcomes.append(winner == "a")
    assert accuracy_of(made, 2, 1, subsets=4000) == pytest.approx(np.mean(outcomes), abs=0.03)


def test_all_samples_and_all_verdicts_are_one_choice() -> None:
    verdicts = np.array([[1.0], [0.1], [0.1], [1.0], [1.0], [0.1]])
    assert accuracy_of(problem(verdicts), 6, 1) == 1.0
    assert accuracy_of(problem(verdicts), 6, 0) == 0.0


def test_a_good_verifier_is_worth_its_tokens_and_a_useless_one_is_not() -> None:
    good = [synthetic(seed, 0.9) for seed in range(20)]
    useless = [synthetic(seed, 0.5) for seed in range(20)]
    for problems, verifies in ((good, True), (useless, False)):
        chosen = best_split(grid(problems, [1, 4, 8, 16], [0, 1, 2], subsets=20), 640)
        assert chosen.tokens <= 640
        assert (chosen.verifications > 0) == verifies


def test_the_cost_counts_every_verdict() -> None:
    made = problem(np.zeros((6, 4)))
    assert tokens_of(made, 5, 0) == 150
    assert tokens_of(made, 5, 3) == 5 * (30 + 3 * 10)
    kept = Verified(ANSWERS, CORRECT, made.verdicts, 30.0, 10.0, once=50.0)
    assert tokens_of(kept, 5, 0) == 150
    assert tokens_of(kept, 5, 3) == 5 * (30 + 3 * 10) + 50


def test_the_growth_of_the_best_splits_is_their_power_law() -> None:
    budgets = [100.0, 1000.0, 10000.0]
    measured = [Split(round(b**0.6), round(b**0.4), b, b / 1e5) for b in budgets] + [Split(9, 0, 50.0, 0.9)]
    found = growth(measured, budgets)
    assert found.samples == pytest.approx(0.6, abs=0.03)
    assert found.verifications == pytest.approx(0.4, abs=0.03)
    assert math.isnan(growth(measured, [100.0]).samples)


def test_what_cannot_work_is_refused() -> None:
    made = problem(np.zeros((6, 2)))
    with pytest.raises(ConfigError, match="S=7"):
        accuracy_of(made, 7, 0)
    with pytest.raises(ConfigError, match="V=3"):
        accuracy_of(made, 2, 3)
    with pytest.raises(ConfigError, match="too small"):
        best_split([Split(1, 0, 10.0, 0.5)], 5)
    with pytest.raises(ConfigError, match="no problem"):
        grid([], [1], [0])
    with pytest.raises(ConfigError, match=r"in \[0, 1\]"):
        problem(np.full((6, 1), 1.5))
    with pytest.raises(ConfigError, match="each sample"):
        problem(np.zeros((5, 1)))
