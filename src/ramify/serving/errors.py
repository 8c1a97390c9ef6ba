"""Errors of the API, in OpenAI's form: what is wrong with the request, never what the server looks like inside."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ramify.errors import (
    CapabilityError,
    ConfigError,
    QuotaError,
    RequestError,
    SamplingParamsError,
    StorageFullError,
)

_log = logging.getLogger(__name__)
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
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
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed on this request; its log has the reason", code="internal_error")


def _of_validation(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong, by the name of its field; the value is not repeated, for it may be large."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return ApiError(400, f"{place or 'the body'}: {first['msg']}", param=place or None)


def install_error_handlers(app: FastAPI) -> None:
    """Every exception of a route becomes an error body."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        told = as_api_error(error)
        return JSONResponse(told.body(), told.status, told.headers)

    known = (ApiError, RequestValidationError, HTTPException, QuotaError, StorageFullError, *_CALLERS_FAULT)
    for kind in (*known, Exception):
        app.add_exception_handler(kind, answer)
