"""The input of a batch: read in pages of lines, and checked whole before anything of it runs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection
from typing import Any

import msgspec

from ramify.errors import RequestError
from ramify.serving.auth import Caller
from ramify.serving.bodies import check_json
from ramify.serving.errors import ApiError
from ramify.serving.jsonl import lines_of
from ramify.serving.limits import Limits
from ramify.serving.storage.records import LineError

PAGE_LINES = 256
PAGE_BYTES = 2**20
MAX_ERRORS = 100
"""Errors that are listed; a file that is all wrong is not worth more."""
MAX_CUSTOM_ID = 512
_FIELDS = ("custom_id", "method", "url", "body")
_DIGEST_BYTES = 16


async def pages_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[tuple[int, bytes]]]:
    """The lines of a file with their numbers, some at a time: a page is short, or of a single long line."""
    page: list[tuple[int, bytes]] = []
    num_bytes = 0
    async for number, line in lines_of(pieces):
        page.append((number, line))
        num_bytes += len(line)
        if len(page) == PAGE_LINES or num_bytes >= PAGE_BYTES:
            yield page
            page, num_bytes = [], 0
    if page:
        yield page


class InputCheck:
    """Checks the lines of a batch.

    Args:
        endpoint: that all of them must ask for.
        models: names that the server knows.
        caller: whose models they must be.
        limits: of the server.

    Attributes:
        num_lines: read so far.
        errors: found so far.
    """

    def __init__(self, endpoint: str, models: Collection[str], caller: Caller, limits: Limits) -> None:
        self._endpoint = endpoint
        self._models = models
        self._caller = caller
        self._limits = limits
        self._seen: set[bytes] = set()
        self._named: set[str | None] = set()
        self.num_lines = 0
        self.errors: list[LineError] = []

    @property
    def model(self) -> str | None:
        """The model that all lines name; None if they differ."""
        return next(iter(self._named)) if len(self._named) == 1 else None

    async def read(self, pieces: AsyncIterator[bytes]) -> None:
        """Check a file; stops early where it makes no sense to go on."""
        try:
            async for page in pages_of(pieces):
                await asyncio.to_thread(self._check_page, page)
                if len(self.errors) >= MAX_ERRORS or self.num_lines > self._limits.max_batch_requests:
                    break
        except RequestError as error:
            self.errors.append(LineError("invalid_file", str(error)))
        if not self.num_lines and not self.errors:
            self.errors.append(LineError("empty_file", "the file has no lines: put one request on each line"))

    def _check_page(self, page: list[tuple[int, bytes]]) -> None:
        for number, raw in page:
            self.num_lines += 1
            if self.num_lines > self._limits.max_batch_requests:
                bound = self._limits.max_batch_requests
                message = f"the file has more than {bound:,} requests: split it into several batches"
                self.errors.append(LineError("too_many_requests", message, number))
                return
            if (fault := self._fault(number, raw)) is not None:
                self.errors.append(fault)
                if len(self.errors) >= MAX_ERRORS:
                    return

    def _fault(self, number: int, raw: bytes) -> LineError | None:
        try:
            check_json(raw, self._limits.max_json_depth)
            record = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, ApiError, UnicodeDecodeError, RecursionError) as error:
            return LineError("invalid_json_line", f"this line is not valid JSON: {error}", number)
        if not isinstance(record, dict):
            return LineError("invalid_json_line", "this line is not a JSON object", number)
        fault = self._form_fault(record) or self._id_fault(record) or self._model_fault(record)
        if fault is None:
            return None
        code, message, param = fault
        return LineError(code, message, number, param)

    def _form_fault(self, record: dict[str, Any]) -> tuple[str, str, str] | None:
        for name in _FIELDS:
            if name not in record:
                return "missing_required_parameter", f"{name} is missing", name
        for name in record:
            if name not in _FIELDS:
                return "unknown_parameter", f"{name[:100]!r} is not a field of a batch's line", name[:100]
        if record["method"] != "POST":
            return "invalid_method", f"method is {_short(record['method'])}: it must be 'POST'", "method"
        if record["url"] != self._endpoint:
            message = f"url is {_short(record['url'])}: it must be the batch's endpoint, {self._endpoint!r}"
            return "mismatched_url", message, "url"
        if not isinstance(record["body"], dict):
            return "invalid_body", "body is not a JSON object", "body"
        return None

    def _id_fault(self, record: dict[str, Any]) -> tuple[str, str, str] | None:
        custom_id = record["custom_id"]
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID:
            message = f"custom_id is {_short(custom_id)}: it must be text of 1 to {MAX_CUSTOM_ID} characters"
            return "invalid_custom_id", message, "custom_id"
        digest = hashlib.blake2b(custom_id.encode(), digest_size=_DIGEST_BYTES).digest()
        if digest in self._seen:
            return "duplicate_custom_id", f"custom_id {_short(custom_id)} is on an earlier line too", "custom_id"
        self._seen.add(digest)
        return None

    def _model_fault(self, record: dict[str, Any]) -> tuple[str, str, str] | None:
        named = record["body"].get("model")
        self._named.add(named if isinstance(named, str) else None)
        if named is None:
            return "missing_required_parameter", "body.model is missing", "body.model"
        model = named.partition("@")[0] if isinstance(named, str) else named
        if model not in self._models:
            known = ", ".join(self._models)
            return "model_not_found", f"there is no model {_short(named)} here (there are: {known})", "body.model"
        if not self._caller.may_use(model):
            return "model_denied", f"this key may not use model {_short(named)}", "body.model"
        return None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
