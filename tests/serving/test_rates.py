"""Token buckets: what a key may use in a minute, whatever the order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.serving.errors import ApiError
from ramify.serving.rates import RATE_HEADERS, Rates, TokenBucket


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_key_may_send_so_many_requests_and_is_told_when_the_next_one_may_come() -> None:
    clock = Clock()
    rates = Rates(2, None, clock)
    rates.take_request()
    rates.take_request()
    with pytest.raises(ApiError) as refused:
        rates.take_request()
    assert refused.value.status == 429
    assert refused.value.headers["retry-after"] == "30"
    assert refused.value.headers["x-ratelimit-remaining-requests"] == "0"
    clock.now_s += 30
    rates.take_request()


def test_tokens_are_charged_by_use_and_a_debt_is_waited_out() -> None:
    clock = Clock()
    rates = Rates(None, 60, clock)
    rates.check_tokens()
    rates.charge(90)
    with pytest.raises(ApiError) as refused:
        rates.check_tokens()
    assert refused.value.headers["retry-after"] == "31"  # 30 of debt and one to spend
    clock.now_s += 31
    rates.check_tokens()


def test_no_limit_means_no_header_and_no_refusal() -> None:
    rates = Rates(None, None)
    rates.take_request()
    rates.charge(10**9)
    rates.check_tokens()
    assert rates.headers() == {}
    assert set(Rates(1, 1).headers()) == set(RATE_HEADERS)


@given(per_minute=st.integers(1, 1000), events=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50)), max_size=50))
def test_a_bucket_never_gives_more_than_its_rate_and_one_burst(
    per_minute: int, events: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(per_minute, clock)
    taken = 0
    for wait_s, amount in events:
        clock.now_s += wait_s
        if bucket.level >= amount:
            bucket.take(amount)
            taken += amount
    assert taken <= per_minute + (clock.now_s - 1000.0) * per_minute / 60 + 1e-6
    assert bucket.level <= per_minute
