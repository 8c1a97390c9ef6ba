"""The advice is the highest curve within a budget, its error is that of other problems, and it repeats."""

import numpy as np
import pytest

from ramify.errors import ConfigError
from ramify.planning.recommend import Measured, judge, recommend
from ramify.randomness import FloatArray

SIZES = (1, 2, 4, 8, 16)


def method(name: str, rates: list[float], price: float = 30.0, problems: int = 80, seed: int = 0) -> Measured:
    rng = np.random.default_rng(seed)
    accuracy: FloatArray = (rng.random((problems, 1)) < np.array(rates)[None, :]).astype(np.float64)
    tokens = price * np.array(SIZES)[None, :] * np.ones((problems, 1))
    return Measured(name, tuple(f"{name}:n={n}" for n in SIZES), accuracy, tokens)


FLAT = method("flat", [0.5, 0.5, 0.5, 0.5, 0.5])
RISING = method("rising", [0.2, 0.4, 0.6, 0.75, 0.85], price=60.0)
FALLING = method("falling", [0.55, 0.5, 0.4, 0.35, 0.3])


def test_each_budget_gets_the_method_and_the_size_of_the_highest_curve_within_it() -> None:
    small, large = recommend([FLAT, RISING], [70, 960])
    assert (small.method, large.method) == ("flat", "rising")
    assert large.spec == "rising:n=16"
    assert large.tokens == 960
    assert large.expected == pytest.approx(RISING.accuracy[:, -1].mean(), abs=0.04)
    assert small.spec == "flat:n=1"  # of equal ones the cheapest


def test_a_method_that_falls_is_used_at_its_smallest_size() -> None:
    [advice] = recommend([FALLING], [480])
    assert advice.spec == "falling:n=1"


def test_the_error_is_that_of_a_mean_over_problems() -> None:
    [advice] = recommend([RISING], [960])
    rate = RISING.accuracy[:, -1].mean()
    assert advice.error == pytest.approx(np.sqrt(rate * (1 - rate) / 80), rel=0.3)
    alike = [f"puzzle {row // 4}" for row in range(80)]
    same = Measured("same", RISING.specs, np.repeat(RISING.accuracy[:20], 4, axis=0), RISING.tokens)
    assert recommend([same], [960], groups=alike)[0].error > 1.5 * recommend([same], [960])[0].error


def test_a_clear_choice_is_chosen_again_and_again_and_a_close_one_is_not() -> None:
    clear = recommend([FLAT, RISING], [960])[0]
    close = recommend([method("one", [0.5] * 5, seed=1), method("other", [0.5] * 5, seed=2)], [480])[0]
    assert clear.chosen > 0.95
    assert close.chosen < 0.95


def test_a_budget_below_the_cheapest_gets_no_advice() -> None:
    assert recommend([FLAT], [10]) == []


def test_advice_repeats_and_is_judged_on_other_problems() -> None:
    advice = recommend([FLAT, RISING], [100, 960], seed=3)
    assert advice == recommend([FLAT, RISING], [100, 960], seed=3)
    other = method("rising", [0.2, 0.4, 0.6, 0.75, 0.85], price=60.0, seed=9)
    accuracy, tokens = judge(advice[-1], [FLAT, other])
    assert accuracy.tolist() == other.accuracy[:, -1].tolist()
    assert tokens.mean() == 960
    with pytest.raises(ConfigError, match="was not measured"):
        judge(advice[-1], [FLAT])


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="same name"):
        recommend([FLAT, FLAT], [100])
    with pytest.raises(ConfigError, match="same"):
        recommend([FLAT, method("other", [0.5] * 5, problems=7)], [100])
    with pytest.raises(ConfigError, match="says nothing"):
        recommend([method("one", [0.5] * 5, problems=1)], [100])
    with pytest.raises(ConfigError, match="sizes"):
        Measured("m", ("m:n=1",), np.zeros((3, 2)), np.zeros((3, 2)))
