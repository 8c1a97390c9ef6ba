"""Bodies of requests, before anything parses them: their size, their pace, their kind and the depth of their JSON."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np

from ramify.serving.errors import ApiError
from ramify.serving.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
UPLOAD_PATHS = frozenset({"/v1/files"})
"""Where bodies are forms with a file in them, and may be as large as `max_upload_bytes`."""
MIN_BYTES_PER_S = 16 * 2**10
_DISCARDED = 4
"""A body that is too long is still read up to so many times its bound: a client reads no answer before it has sent."""
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = np.zeros(256, dtype=np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1


def json_depth(body: bytes) -> int:
    """How deep lists and objects are nested; an upper bound for what is not JSON. Linear, and never recursive."""
    brackets = _STRINGS.sub(b"", body).translate(None, _NOT_BRACKETS)
    if not brackets:
        return 0
    return max(0, int(_STEP[np.frombuffer(brackets, dtype=np.uint8)].cumsum(dtype=np.int64).max()))


def check_json(body: bytes, bound: int) -> None:
    """Raises ApiError: 400, the JSON is nested too deep, or is not UTF-8 (its other encodings have zero bytes)."""
    if b"\0" in body:
        raise ApiError(400, "the body holds a zero byte: send JSON in UTF-8", code="body_not_utf8")
    if body.count(b"[") + body.count(b"{") <= bound:
        return  # not even if all were inside each other
    if json_depth(body) > bound:
        raise ApiError(400, f"the body is nested more than {bound} levels deep: flatten it", code="body_too_deep")


def check_kind(content_type: str, encoding: str, upload: bool) -> None:
    """Raises ApiError: 415, the body is not what the endpoint reads."""
    if encoding not in ("", "identity"):
        raise ApiError(415, f"bodies with Content-Encoding {encoding[:40]!r} are not read: send it as it is")
    kind = content_type.partition(";")[0].strip().lower()
    wanted = "multipart/form-data" if upload else "application/json"
    if kind != wanted:
        raise ApiError(415, f"the body's Content-Type is {kind[:80]!r}: send {wanted}", code="unsupported_media_type")


class Room:
    """Memory for the bodies that are arriving, of all requests together.

    Args:
        bound: bytes.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._taken = 0

    def take(self, size: int) -> None:
        """Raises ApiError: 503, there is none left."""
        if self._taken + size > self._bound:
            headers = {"retry-after": "1", "connection": "close"}
            raise ApiError(503, "too many long bodies are arriving: try again", code="bodies_full", headers=headers)
        self._taken += size

    def give_back(self, size: int) -> None:
        """It is no longer held here."""
        self._taken -= size


class Body:
    """The body of one request, as it arrives.

    Args:
        receive: the ASGI callable under it.
        bound: bytes.
        limits: for its pace.
        room: for what is held of it.
    """

    def __init__(self, receive: Receive, bound: int, limits: Limits, room: Room) -> None:
        self._receive = receive
        self._room = room
        self._bound = bound
        self._grace_s = limits.body_timeout_s
        self._started_s = asyncio.get_running_loop().time()
        self.received = 0
        self.complete = False

    async def next(self) -> Message:
        """The next part.

        Raises:
            ApiError: 408, it comes too slowly; 413, it is too long.
        """
        if self.complete:
            return await self._receive()
        message = await self._part()
        if self.received > self._bound:
            await self.discard()
            raise too_long(self._bound)
        return message

    async def whole(self) -> bytes | None:
        """All of it; None if the client went away meanwhile.

        Raises:
            ApiError: 408 or 413, as above; 503, too much is arriving.
        """
        parts: list[bytes] = []
        held = 0
        try:
            while not self.complete:
                message = await self.next()
                if message["type"] == "http.disconnect":
                    return None
                part = message.get("body", b"")
                self._room.take(len(part))
                held += len(part)
                parts.append(part)
            return b"".join(parts)
        finally:
            self._room.give_back(held)

    async def discard(self) -> None:
        """Read on without keeping anything, so far as is reasonable."""
        while not self.complete and self.received < _DISCARDED * self._bound:
            if (await self._part())["type"] == "http.disconnect":
                return

    async def _part(self) -> Message:
        until = self._started_s + self._grace_s + self.received / MIN_BYTES_PER_S
        try:
            async with asyncio.timeout_at(until):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                f"the body did not arrive in time ({self.received} bytes did)",
                code="body_timeout",
                headers={"connection": "close"},
            ) from None
        self.received += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        return message


def too_long(bound: int) -> ApiError:
    """413; the connection ends, for the rest of the body may still be coming."""
    message = f"the body is longer than {bound} bytes: send less, or in parts"
    return ApiError(413, message, code="body_too_large", headers={"connection": "close"})
