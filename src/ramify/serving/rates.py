"""Rates of a key: token buckets on a monotonic clock, and the headers in which OpenAI's clients read them.

A bucket holds one minute's worth. Requests are paid when they come. Tokens are paid when they have been used, for
nobody knows their number before: the balance may fall below zero, and the next request waits until it is above again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ramify.serving.errors import ApiError

_MINUTE_S = 60.0
Clock = Callable[[], float]
RATE_HEADERS = tuple(
    f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)


class TokenBucket:
    """So many per minute, with a burst of one minute's worth.

    Args:
        per_minute: at least 1.
        clock: seconds, never going back.
    """

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._filled_at = clock()

    @property
    def level(self) -> float:
        """What may be taken now; negative is a debt."""
        now = self._clock()
        self._level = min(self.per_minute, self._level + (now - self._filled_at) * self.per_minute / _MINUTE_S)
        self._filled_at = now
        return self._level

    def take(self, amount: float) -> None:
        """Pay, into debt if need be."""
        self._level = self.level - amount

    def seconds_until(self, level: float) -> float:
        """How long until the bucket holds so much; 0 if it does."""
        return max(0.0, (level - self.level) * _MINUTE_S / self.per_minute)


class Rates:
    """The rates of one key.

    Args:
        requests_per_minute, tokens_per_minute: None is no limit.
    """

    def __init__(
        self, requests_per_minute: int | None, tokens_per_minute: int | None, clock: Clock = time.monotonic
    ) -> None:
        self._requests = TokenBucket(requests_per_minute, clock) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute, clock) if tokens_per_minute else None

    def take_request(self) -> None:
        """Count a request.

        Raises:
            ApiError: 429, there were too many in the last minute.
        """
        if self._requests is None:
            return
        if (wait_s := self._requests.seconds_until(1)) > 0:
            raise self._refused(f"this key may send {self._requests.per_minute} requests a minute", wait_s)
        self._requests.take(1)

    def check_tokens(self) -> None:
        """Before a generation.

        Raises:
            ApiError: 429, the last minute's tokens are used up.
        """
        if self._tokens is not None and (wait_s := self._tokens.seconds_until(1)) > 0:
            raise self._refused(f"this key may use {self._tokens.per_minute} tokens a minute", wait_s)

    def charge(self, tokens: int) -> None:
        """After a generation, finished or not: what it used, prompt and answer together."""
        if self._tokens is not None:
            self._tokens.take(tokens)

    def headers(self) -> dict[str, str]:
        """``x-ratelimit-*`` as OpenAI names them."""
        found: dict[str, str] = {}
        for kind, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                found[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
                found[f"x-ratelimit-remaining-{kind}"] = str(max(0, math.floor(bucket.level)))
                found[f"x-ratelimit-reset-{kind}"] = f"{bucket.seconds_until(bucket.per_minute):.3f}s"
        return found

    def _refused(self, rule: str, wait_s: float) -> ApiError:
        seconds = math.ceil(wait_s)
        headers = {"retry-after": str(seconds), **self.headers()}
        return ApiError(429, f"{rule}: try again in {seconds} s", code="rate_limit_exceeded", headers=headers)
