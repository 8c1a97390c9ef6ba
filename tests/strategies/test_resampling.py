"""Resampling schemes: unbiased, in range, and exact where they promise it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ramify.errors import ConfigError
from ramify.randomness import BranchKey, uniform_counters
from ramify.strategies.resampling import (
    SCHEMES,
    choose,
    conditional,
    effective_sample_size,
    log_mean,
    scheme,
    softmax,
)

POSITIVE = st.lists(st.floats(0.001, 1), min_size=1, max_size=9)


def draws(key, n):
    return uniform_counters(BranchKey.root(key), n)


@pytest.mark.parametrize("name", SCHEMES)
def test_each_parent_is_chosen_n_times_its_weight_on_average(name):
    weights = np.array([0.05, 0.45, 0.3, 0.2])
    counts = np.zeros(4)
    for trial in range(4000):
        counts += np.bincount(SCHEMES[name](weights, draws(trial, 4)), minlength=4)
    assert np.allclose(counts / 4000, 4 * weights, atol=0.06)


@pytest.mark.parametrize("name", SCHEMES)
@given(POSITIVE, st.integers(0, 1000))
def test_parents_are_as_many_as_particles_and_sorted(name, raw, seed):
    weights = np.array(raw) / sum(raw)
    parents = SCHEMES[name](weights, draws(seed, len(raw)))
    assert len(parents) == len(raw)
    assert list(parents) == sorted(parents)
    assert parents.min() >= 0
    assert parents.max() < len(raw)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_particle_of_no_weight_is_never_chosen(name):
    for seed in range(50):
        assert set(SCHEMES[name](np.array([0.0, 0.6, 0.0, 0.4]), draws(seed, 4))) <= {1, 3}


@given(st.integers(1, 40), st.integers(0, 1000))
def test_systematic_and_residual_keep_every_particle_of_equal_weight(n, seed):
    weights = np.full(n, 1 / n)
    for name in ("systematic", "residual"):
        assert list(SCHEMES[name](weights, draws(seed, n))) == list(range(n))


@given(POSITIVE, st.integers(0, 1000))
def test_residual_and_systematic_stay_within_one_copy_of_the_expected_number(raw, seed):
    weights = np.array(raw) / sum(raw)
    expected = len(raw) * weights
    copies = np.bincount(SCHEMES["systematic"](weights, draws(seed, len(raw))), minlength=len(raw))
    assert (np.abs(copies - expected) < 1 + 1e-6).all()
    kept = np.bincount(SCHEMES["residual"](weights, draws(seed, len(raw))), minlength=len(raw))
    assert (kept >= np.floor(expected - 1e-6)).all()


@pytest.mark.parametrize("name", SCHEMES)
@given(POSITIVE, st.integers(0, 1000))
def test_the_kept_parent_is_among_the_chosen_in_the_slot_that_is_named(name, raw, seed):
    weights = np.array(raw) / sum(raw)
    n = len(raw)
    for kept in range(n):
        parents, slot = conditional(name, weights, kept, draws(seed, n), float(draws(seed + 5000, 1)[0]))
        assert parents[slot] == kept
        assert list(parents) == sorted(parents)


@pytest.mark.parametrize("name", SCHEMES)
def test_keeping_a_parent_drawn_by_weight_is_the_same_as_drawing_freely(name):
    weights = np.array([0.05, 0.45, 0.3, 0.2])
    free, kept = Counter(), Counter()
    for trial in range(4000):
        free[tuple(SCHEMES[name](weights, draws(trial, 4)))] += 1
        first, mark = draws(10_000 + trial, 2)
        parents, _ = conditional(name, weights, choose(weights, first), draws(20_000 + trial, 4), mark)
        kept[tuple(parents)] += 1
    outcomes = [o for o in set(free) | set(kept) if free[o] + kept[o] >= 10]
    table = [[counts[outcome] for outcome in outcomes] for counts in (free, kept)]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_choice_never_falls_on_a_weight_of_zero():
    assert [choose(np.array([0.0, 2.0, 0.0, 6.0]), mark) for mark in (1e-9, 0.2, 0.3, 1 - 1e-9)] == [1, 1, 3, 3]


def test_effective_sample_size_runs_from_one_to_n():
    assert effective_sample_size(np.full(8, 1 / 8)) == pytest.approx(8)
    assert effective_sample_size(np.array([1.0, 0.0, 0.0])) == pytest.approx(1)


def test_log_mean_is_the_logarithm_of_the_mean_weight_without_overflow():
    assert log_mean(np.array([1000.0, 1000.0 + np.log(3)])) == pytest.approx(1000 + np.log(2))
    assert log_mean(np.array([-np.inf, -np.inf])) == -np.inf


def test_weights_that_cannot_be_normalised_are_refused():
    with pytest.raises(ConfigError, match="normalised"):
        softmax(np.array([-np.inf, -np.inf]))
    with pytest.raises(ConfigError, match="choose from systematic"):
        scheme("fair")
