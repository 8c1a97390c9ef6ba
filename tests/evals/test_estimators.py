"""Each estimate equals brute force over all ordered subsets; what is undefined is NaN, what is impossible an error."""

import math
from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.errors import ConfigError
from ramify.evals.estimators import (
    best_of_n_at_k,
    bootstrap_interval,
    maj_at_k,
    pass_at_k,
    subsets,
    weighted_at_k,
)

RIGHT = "a"
pools = st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=5)


def ordered_subsets(n: int, k: int) -> list[tuple[int, ...]]:
    return list(permutations(range(n), k))


def first_most_common(keys: list[str | None]) -> str | None:
    votes = [key for key in keys if key is not None]
    return max(votes, key=lambda key: (votes.count(key), -votes.index(key))) if votes else None


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(case: tuple[int, int, int]) -> None:
    n, correct, k = case
    found = [any(index < correct for index in subset) for subset in combinations(range(n), k)]
    assert pass_at_k(n, correct, k) == pytest.approx(np.mean(found))


def test_pass_at_k_stays_exact_for_huge_pools() -> None:
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)
    assert pass_at_k(10_000, 0, 5_000) == 0
    assert pass_at_k(10_000, 6_000, 5_000) == 1


@settings(max_examples=60)
@given(pools, st.data())
def test_maj_at_k_is_the_share_of_ordered_subsets_whose_first_most_common_answer_is_right(
    keys: list[str | None], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(keys)))
    won = [first_most_common([keys[i] for i in subset]) == RIGHT for subset in ordered_subsets(len(keys), k)]
    assert maj_at_k(keys, [key == RIGHT for key in keys], k) == pytest.approx(np.mean(won), abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), min_size=6, max_size=10), st.data())
def test_maj_at_k_with_even_ties_matches_all_unordered_subsets(keys: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(keys)))
    shares = []
    for subset in combinations(keys, k):
        counts = Counter(key for key in subset if key is not None)
        top = max(counts.values(), default=0)
        winners = [key for key, count in counts.items() if count == top]
        shares.append(winners.count(RIGHT) / len(winners) if winners else 0.0)
    assert maj_at_k(keys, [key == RIGHT for key in keys], k) == pytest.approx(np.mean(shares), abs=1e-9)


def test_several_right_keys_share_the_vote_but_all_count() -> None:
    keys = ["1/2", "0.5", "3", None]
    assert maj_at_k(keys, [True, True, False, False], 1) == pytest.approx(0.5)
    assert maj_at_k(keys, [True, True, False, False], 4) == pytest.approx(2 / 3)


def test_maj_at_k_of_a_large_pool_with_many_answers_agrees_with_sampling() -> None:
    rng = np.random.default_rng(0)
    keys = [int(x) for x in np.minimum(rng.geometric(0.3, size=600), 40)]
    exact = maj_at_k(keys, [key == 1 for key in keys], 15)
    drawn = [first_most_common([keys[i] for i in rng.permutation(600)[:15]]) == 1 for _ in range(3000)]
    assert exact == pytest.approx(np.mean(drawn), abs=4 * 0.5 / math.sqrt(3000))


def test_maj_at_k_does_not_overflow_for_pools_of_thousands() -> None:
    keys = [0] * 700 + [1] * 600 + [None] * 20
    assert 0.6 < maj_at_k(keys, [key == 0 for key in keys], 41) < 0.75
    assert maj_at_k(keys, [key == 0 for key in keys], 1319) == pytest.approx(1.0)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1, max_size=5), st.data())
def test_best_of_n_at_k_is_the_share_of_ordered_subsets_whose_first_best_sample_is_right(
    pool: list[tuple[float, bool]], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(pool)))
    won = [max((pool[i] for i in subset), key=lambda item: item[0])[1] for subset in ordered_subsets(len(pool), k)]
    estimate = best_of_n_at_k([score for score, _ in pool], [ok for _, ok in pool], k)
    assert estimate == pytest.approx(np.mean(won), abs=1e-12)


def test_best_of_n_with_a_perfect_scorer_is_pass_at_k_and_with_a_blind_one_pass_at_1() -> None:
    correct = [True, False, False, True, False]
    for k in range(1, 6):
        assert best_of_n_at_k([float(ok) for ok in correct], correct, k) == pytest.approx(pass_at_k(5, 2, k))
        assert best_of_n_at_k([0.3] * 5, correct, k) == pytest.approx(pass_at_k(5, 2, 1))


@settings(max_examples=20)
@given(pools, st.data())
def test_weighted_at_k_with_equal_weights_estimates_maj_at_k(keys: list[str | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(keys)))
    correct = [key == RIGHT for key in keys]
    estimate = weighted_at_k(keys, [0.5] * len(keys), correct, k, seed=3)
    assert estimate == pytest.approx(maj_at_k(keys, correct, k), abs=0.08)


def test_weighted_at_k_of_the_whole_pool_adds_the_weights_of_each_answer() -> None:
    keys, weights = ["a", "a", "b", None], [0.3, 0.3, 0.5, 9.0]
    assert weighted_at_k(keys, weights, [True, True, False, False], 4) == 1
    assert weighted_at_k(keys, [0.2, 0.2, 0.5, 9.0], [True, True, False, False], 4) == 0
    assert weighted_at_k(["a", "b"], [0.0, 0.0], [True, False], 2) == 0.5
    assert weighted_at_k([None, None], [0.4, 0.2], [False, False], 1) == 0


def test_a_seed_gives_one_set_of_subsets_and_each_is_without_repetition() -> None:
    drawn = subsets(10, 4, seed=7)
    assert drawn.shape == (1000, 4)
    assert np.array_equal(drawn, subsets(10, 4, seed=7))
    assert not np.array_equal(drawn, subsets(10, 4, seed=8))
    assert all(len(set(row)) == 4 for row in drawn.tolist())


@pytest.mark.parametrize("k", [0, -1, 5])
def test_a_k_that_the_pool_cannot_answer_is_an_error_that_names_both(k: int) -> None:
    with pytest.raises(ConfigError, match=f"k={k} .* pool of 4"):
        pass_at_k(4, 2, k)
    with pytest.raises(ConfigError, match=f"k={k} .* pool of 4"):
        maj_at_k(["a"] * 4, [True] * 4, k)
    with pytest.raises(ConfigError, match=f"k={k} .* pool of 4"):
        best_of_n_at_k([1.0] * 4, [True] * 4, k)


def test_input_that_means_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="both right and wrong"):
        maj_at_k(["a", "a"], [True, False], 1)
    with pytest.raises(ConfigError, match="NaN"):
        best_of_n_at_k([math.nan, 0.1], [True, False], 1)
    with pytest.raises(ConfigError, match="0 or more"):
        weighted_at_k(["a", "b"], [-0.1, 0.2], [True, False], 1)
    with pytest.raises(ConfigError, match="lengths are 2, 1"):
        maj_at_k(["a", "b"], [True], 1)
    with pytest.raises(ConfigError, match="level=95"):
        bootstrap_interval([1.0, 0.0], level=95)


def test_the_bootstrap_interval_is_seeded_and_covers_the_mean() -> None:
    values = [1.0] * 30 + [0.0] * 70
    interval = bootstrap_interval(values)
    assert interval == bootstrap_interval(values)
    assert interval.mean == pytest.approx(0.3)
    # The normal approximation of the same interval: 1.96 * sqrt(0.3 * 0.7 / 100) = 0.09.
    assert interval.low == pytest.approx(0.21, abs=0.02)
    assert interval.high == pytest.approx(0.39, abs=0.02)


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.normal(size=40), resamples=300) for _ in range(150)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.88 <= covered <= 0.99


def test_problems_of_one_group_are_no_independent_evidence() -> None:
    values = [1.0] * 30 + [0.0] * 70
    alone = bootstrap_interval(values)
    assert bootstrap_interval(values, groups=range(100)) == alone
    # Every problem four times is still 100 problems' worth of evidence.
    repeated = bootstrap_interval(values * 4, groups=[*range(100)] * 4)
    assert (repeated.mean, repeated.low, repeated.high) == pytest.approx((alone.mean, alone.low, alone.high))
    naive = bootstrap_interval(values * 4)
    assert naive.high - naive.low == pytest.approx((alone.high - alone.low) / 2, rel=0.15)
    assert math.isnan(bootstrap_interval([1.0, 0.0], groups=["same", "same"]).low)
    with pytest.raises(ConfigError, match="lengths are 2, 1"):
        bootstrap_interval([1.0, 0.0], groups=["a"])


def test_the_interval_over_groups_covers_the_truth_where_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(25), 4)
    plain = grouped = 0
    for _ in range(150):
        values = rng.normal(size=25)[groups] + 0.1 * rng.normal(size=100)
        narrow, wide = (bootstrap_interval(values, resamples=300, groups=g) for g in (None, groups.tolist()))
        plain += narrow.low <= 0 <= narrow.high
        grouped += wide.low <= 0 <= wide.high
    assert plain / 150 < 0.8
    assert 0.86 <= grouped / 150 <= 0.99


def test_undefined_means_are_nan() -> None:
    assert math.isnan(bootstrap_interval([]).mean)
    assert math.isnan(bootstrap_interval([1.0, math.nan]).mean)
    single = bootstrap_interval([1.0])
    assert single.mean == 1
    assert math.isnan(single.low)
    assert math.isnan(single.high)
