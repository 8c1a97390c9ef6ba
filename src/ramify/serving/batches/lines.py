"""One line of a batch: the request that it holds, and how it is answered, again if it was not the line's fault."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ramify.errors import EngineError
from ramify.serving.auth import Caller
from ramify.serving.errors import ApiError, as_api_error
from ramify.serving.records import RequestRecord, recording
from ramify.serving.storage.records import LineResult, StoredBatch, Usage

if TYPE_CHECKING:
    from ramify.serving.server import Server

_log = logging.getLogger(__name__)
SEEDED = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
"""Endpoints whose requests have a seed."""
ATTEMPTS = 5
"""A line on which the engine fails so often goes to the error file: it may be what brings the engine down."""
TOGETHER = 2
"""Of these, so many are made in company; then such lines run one at a time, so that one does not take others along."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
_TRY_LATER = (429, 503)
Answer = Callable[["Server", Caller, str, dict[str, Any], str], Awaitable[dict[str, Any]]]
"""Answers a request: server, caller, endpoint, body, id of the request."""
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Line:
    """A request of a batch, by its number in the file, from 1."""

    number: int
    custom_id: str
    body: Mapping[str, Any]

    @classmethod
    def of(cls, number: int, raw: bytes) -> Line:
        """A line that was found good before."""
        record = msgspec.json.decode(raw)
        return cls(number, record["custom_id"], record["body"])

    def error(self, batch: StoredBatch, code: str, message: str) -> bytes:
        """The line of the error file for a request that never ran."""
        return self._written(batch, None, {"code": code, "message": message})

    def response(self, batch: StoredBatch, status: int, body: Mapping[str, Any]) -> bytes:
        """The line of the output file, or of the error file, for a request that was answered."""
        return self._written(batch, {"status_code": status, "request_id": self.request_id(batch), "body": body}, None)

    def request_id(self, batch: StoredBatch) -> str:
        """The request's id in logs and traces."""
        return f"{batch.id}-{self.number}"

    def _written(self, batch: StoredBatch, response: Any, error: Any) -> bytes:
        name = f"batch_req_{batch.id.partition('_')[2]}{self.number:06d}"
        record = {"id": name, "custom_id": self.custom_id, "response": response, "error": error}
        return _encode(record) + b"\n"


def line_seed(seed: int, custom_id: str) -> int:
    """The seed of a line that names none: of the batch's seed and its custom_id, so that a repeat gives the same."""
    digest = hashlib.blake2b(f"{seed}\n{custom_id}".encode(), digest_size=8, person=b"ramify-line").digest()
    return int.from_bytes(digest, "big") >> 1


async def run_line(server: Server, batch: StoredBatch, line: Line, answer: Answer, alone: asyncio.Lock) -> LineResult:
    """Answer a line. What is the server's passing fault is tried again; what is the line's own ends as an error.

    Args:
        alone: held by the one line that may run of those on which the engine failed before.
    """
    request, request_id = batch.request, line.request_id(batch)
    body = dict(line.body)
    if request.endpoint in SEEDED and body.get("seed") is None:
        body["seed"] = line_seed(request.seed, line.custom_id)
    failures, pause_s = 0, FIRST_PAUSE_S
    while True:
        record = RequestRecord(request_id, "POST", request.endpoint, background=True, caller=request.caller)
        try:
            async with alone if failures >= TOGETHER else nullcontext():
                with recording(record):
                    caller = server.keys.caller_named(request.caller)
                    answered = await answer(server, caller, request.endpoint, body, request_id)
            _ended(server, record, 200)
            return LineResult(line.number, line.response(batch, 200, answered), usage=usage_of(answered))
        except EngineError as error:
            failures += 1
            _log.warning("%s: the engine failed (%d of %d attempts): %s", request_id, failures, ATTEMPTS, error)
            if failures == ATTEMPTS:
                return _failed(server, batch, line, record, error)
        except Exception as error:
            if not (isinstance(error, ApiError) and error.status in _TRY_LATER):
                return _failed(server, batch, line, record, error)
            pause_s = max(pause_s, _asked_pause_s(error))
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def usage_of(body: Mapping[str, Any]) -> Usage:
    """The tokens that an answer says it took, whichever endpoint it is of."""
    usage = body.get("usage") or {}
    read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    written = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return Usage(
        input_tokens=usage.get("prompt_tokens") or usage.get("input_tokens") or 0,
        cached_tokens=read.get("cached_tokens") or 0,
        output_tokens=usage.get("completion_tokens") or usage.get("output_tokens") or 0,
        reasoning_tokens=written.get("reasoning_tokens") or 0,
    )


def _failed(server: Server, batch: StoredBatch, line: Line, record: RequestRecord, error: Exception) -> LineResult:
    told = as_api_error(error)
    record.code = told.code
    _ended(server, record, told.status)
    return LineResult(line.number, line.response(batch, told.status, told.body()), failed=True)


def _ended(server: Server, record: RequestRecord, status: int) -> None:
    record.status = status
    server.metrics.batch_lines.labels("completed" if status == 200 else "failed").inc()
    server.log.write(record)


def _asked_pause_s(error: ApiError) -> float:
    asked = {name.lower(): value for name, value in error.headers.items()}.get("retry-after", "")
    return min(float(asked), LONGEST_PAUSE_S) if asked.isdigit() else 0.0
