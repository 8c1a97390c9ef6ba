"""A curve finds a law that made its points, falls back to lines where no law fits, and never leaves 0 to 1."""

import math

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.planning.curves import Interpolation, Law, fit_curve

TOKENS = np.array([30.0, 60.0, 120.0, 240.0, 480.0, 960.0])


@pytest.mark.parametrize("law", [Law(0.8, 0.5, 96.0, 1.0), Law(0.3, -0.2, 300.0, 2.0), Law(0.6, 0.0, 50.0, 1.0)])
def test_a_law_is_found_from_its_points_whether_it_rises_falls_or_is_level(law: Law) -> None:
    curve = fit_curve(TOKENS, [law.at(x) for x in TOKENS])
    assert curve.name == "law"
    assert curve.left_out < 0.01
    for x in (45.0, 200.0, 700.0):
        assert curve.at(x) == pytest.approx(law.at(x), abs=0.01)


def test_points_that_no_law_describes_are_joined_by_lines() -> None:
    y = [0.2, 0.2, 0.2, 0.7, 0.7, 0.7]
    curve = fit_curve(TOKENS, y)
    assert isinstance(curve.form, Interpolation)
    assert [curve.at(x) for x in TOKENS] == pytest.approx(y)
    assert curve.at(math.sqrt(120 * 240)) == pytest.approx(0.45)  # half way over the logarithm
    assert curve.at(1) == 0.2
    assert curve.at(1e6) == pytest.approx(0.7)


def test_a_law_smooths_noise() -> None:
    law = Law(0.8, 0.5, 96.0, 1.0)
    noise = 0.02 * np.array([1, -1, 1, -1, 1, -1])
    curve = fit_curve(TOKENS, np.array([law.at(x) for x in TOKENS]) + noise)
    errors = [abs(curve.at(x) - law.at(x)) for x in TOKENS]
    assert curve.name == "law"
    assert np.mean(errors) < 0.02


def test_few_points_are_joined_and_their_error_is_undefined() -> None:
    curve = fit_curve([50.0, 10.0], [0.6, 0.2])
    assert curve.name == "interpolation"
    assert math.isnan(curve.left_out)
    assert curve.tokens == (10.0, 50.0)
    assert fit_curve([10.0], [0.4]).at(99) == 0.4


def test_a_curve_stays_between_0_and_1_however_far_it_is_followed() -> None:
    for y in ([0.0, 0.1, 0.3, 0.5, 0.7, 0.99], [0.9, 0.5, 0.3, 0.1, 0.05, 0.0]):
        curve = fit_curve(TOKENS, y)
        assert all(0 <= curve.at(x) <= 1 for x in (1, 50, 1e3, 1e5, 1e8))


def test_the_order_of_the_points_plays_no_part() -> None:
    y = np.array([0.3, 0.4, 0.5, 0.55, 0.6, 0.61])
    assert fit_curve(TOKENS[::-1], y[::-1]) == fit_curve(TOKENS, y)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of each"):
        fit_curve([1.0, 2.0], [0.5])
    with pytest.raises(ConfigError, match="twice"):
        fit_curve([1.0, 1.0], [0.5, 0.6])
    with pytest.raises(ConfigError, match="above 0"):
        fit_curve([0.0], [0.5])
    with pytest.raises(ConfigError, match="from 0 to 1"):
        fit_curve([1.0], [1.5])
