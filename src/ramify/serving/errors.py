"""Errors of the API, in OpenAI's form: what is wrong with the request, never what the server looks like inside."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from ramify.errors import (
    CapabilityError,
    ConfigError,
    EngineDiedError,
    QuotaError,
    RequestError,
    SamplingParamsError,
    StorageFullError,
)
from ramify.serving.records import current_record

_log = logging.getLogger(__name__)
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_MESSAGES = {
    "extra_forbidden": "this field is not supported here: leave it out",
    "json_invalid": "it is not valid JSON",
    "missing": "this field is required",
}
_MAX_PLACE = 200
_MAX_MESSAGES = 3
ENGINE_RETRY_AFTER_S = 2
"""About what an engine with a small model takes to start."""
_CALLERS_FAULT = (RequestError, SamplingParamsError, ConfigError, CapabilityError)


class ApiError(Exception):
    """What a client is told.

    Args:
        status: HTTP status.
        message: one sentence with the value and the remedy.
        param: the field of the body that is wrong.
        code: for programs, such as "model_not_found".
        headers: such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of any exception: the caller's faults in full, others without their insides."""
    told = _told(error)
    if (record := current_record()) is not None:
        record.code = told.code
    return told


def _told(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, _CALLERS_FAULT):
        return ApiError(400, str(error))
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, QuotaError):
        return ApiError(403, str(error), code="storage_quota_exceeded")
    if isinstance(error, StorageFullError):
        _log.error("the storage is full", exc_info=error)
        return ApiError(507, "the server has no room left to store this; nothing of it was kept", code="storage_full")
    if isinstance(error, EngineDiedError):
        _log.error("a request was lost with its engine: %s", error)
        message = "the engine that ran this request ended unexpectedly and is started anew: try again"
        return ApiError(503, message, code="engine_restarted", headers={"retry-after": str(ENGINE_RETRY_AFTER_S)})
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed on this request; its log has the reason", code="internal_error")


def _of_validation(error: RequestValidationError) -> ApiError:
    """What is wrong, by the name of its field; the value is not repeated, for it may be large.

    A field that may be of several types has an error for each: the one that goes furthest into the body is told, and
    what else was found at the same place.
    """
    found = [(_place(each, error.body), _MESSAGES.get(each["type"], str(each["msg"]))) for each in error.errors()]
    place = max((place for place, _ in found), key=len)
    messages = dict.fromkeys(message for where, message in found if where == place)
    name = ".".join(place)[:_MAX_PLACE]
    told = " or ".join(list(messages)[:_MAX_MESSAGES])
    return ApiError(400, f"{name or 'the body'}: {told}", param=name or None)


def _place(error: Mapping[str, Any], body: Any) -> tuple[str, ...]:
    """The path of names and numbers to what is wrong, without the types that were tried on the way."""
    steps = [step for step in error["loc"] if step != "body"]
    if error["type"] == "json_invalid":
        return ()
    path: list[str] = []
    for last, step in ((number == len(steps) - 1, step) for number, step in enumerate(steps)):
        inside = isinstance(body, Mapping) and step in body
        inside = inside or (isinstance(body, list) and isinstance(step, int) and step < len(body))
        if inside:
            body = body[step]
        if inside or (last and error["type"] == "missing"):
            path.append(str(step))
    return tuple(path)


def error_response(error: ApiError) -> Response:
    """An error as a response. What is no valid Unicode in its message (it may quote the request) is replaced."""
    body = json.dumps(error.body(), ensure_ascii=False).encode(errors="replace")
    return Response(body, error.status, error.headers, media_type="application/json")


def _methods(request: Request, routers: Sequence[APIRouter]) -> list[str]:
    """All methods that the path of a request has."""
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in matching for method in route.methods or ()})


def install_error_handlers(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Every exception of a route becomes an error body; a wrong method is told which ones there are."""

    async def answer(request: Request, error: Exception) -> Response:
        told = as_api_error(error)
        if told.status == 405:
            methods = ", ".join(_methods(request, routers))
            said = f"{request.method} does not work here: use {methods}"
            told = ApiError(405, said, code="method_not_allowed", headers={"allow": methods})
        return error_response(told)

    known = (ApiError, RequestValidationError, HTTPException, QuotaError, StorageFullError, *_CALLERS_FAULT)
    for kind in (*known, Exception):
        app.add_exception_handler(kind, answer)
