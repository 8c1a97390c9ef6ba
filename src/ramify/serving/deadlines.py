"""`Deadline`: until when an answer is of use, and what is said of one that is late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, TypeVar

from ramify.serving.errors import ApiError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of a request's time.

    Attributes:
        at_s: on `time.perf_counter`.
        allowed_s: how long that was, for messages.
        whose: "client" if it was asked for, "server" if it is the server's own limit.
    """

    at_s: float
    allowed_s: float
    whose: Literal["client", "server"]

    @classmethod
    def of(cls, arrived_s: float, asked_s: float | None, limit_s: float | None) -> Deadline | None:
        """The deadline of a request that came at `arrived_s`.

        Args:
            asked_s: by the client.
            limit_s: the server's, which holds where the client asked for nothing and which it cannot pass.

        Raises:
            ApiError: 400, the client asks for more than it may, or for no time at all.
        """
        if asked_s is None:
            return None if limit_s is None else cls(arrived_s + limit_s, limit_s, "server")
        if not asked_s > 0:
            raise ApiError(400, f"timeout={asked_s:g} does not work: it must be above 0 s", param="timeout")
        if limit_s is not None and asked_s > limit_s:
            message = f"timeout={asked_s:g} does not work: this server gives a request {limit_s:g} s at most"
            raise ApiError(400, message, param="timeout")
        return cls(arrived_s + asked_s, asked_s, "client")

    @property
    def left_s(self) -> float:
        """Seconds until then; negative when it has passed."""
        return self.at_s - time.perf_counter()

    def missed(self) -> ApiError:
        """What the client is told: 408 for its own deadline, 504 for the server's."""
        if self.whose == "client":
            return ApiError(
                408,
                f"the answer was not ready within the {self.allowed_s:g} s that the request allowed: "
                "ask for fewer tokens or allow more time",
                code="deadline_exceeded",
            )
        return ApiError(
            504,
            f"the answer was not ready within the {self.allowed_s:g} s that this server gives a request: "
            "ask for fewer tokens",
            code="deadline_exceeded",
        )


async def until(deadline: Deadline | None, stream: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The items of a stream that come in time; it is closed in every case.

    Raises:
        ApiError: 408 or 504, the deadline passed before its end.
    """
    try:
        if deadline is None:
            async for item in stream:
                yield item
            return
        while True:
            try:
                async with asyncio.timeout(deadline.left_s) as limit:
                    item = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not limit.expired():
                    raise
                raise deadline.missed() from None
            yield item
    finally:
        await stream.aclose()
