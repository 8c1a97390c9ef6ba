"""The OpenAPI document: what every operation may answer besides its result, and the keys that it takes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from ramify.serving.edge import OPEN_PATHS

_REASONS = {
    400: "Something in the request cannot work; `param` names it.",
    401: "A key is needed, or is not valid.",
    403: "The key, or the page, may not do this.",
    404: "There is no such thing, or it belongs to somebody else.",
    405: "The path knows other methods.",
    408: "It did not arrive, or was not done, in time.",
    409: "It is in a state in which this cannot be done.",
    413: "The body is too long.",
    415: "The body is of another kind than the endpoint reads.",
    429: "Too much for the key's rate, or too many wait: Retry-After says for how long.",
    431: "The headers are too long.",
    500: "The server failed on this request.",
    503: "The server is ending, or the model cannot run now: Retry-After says for how long.",
    504: "The answer was not done in time.",
    507: "There is no room to store this.",
}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error object."""

    error: ErrorDetail


def install_document(app: FastAPI) -> None:
    """Complete an application's document, once its routes are in it."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            app.openapi_schema = _completed(made)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    detail = ErrorDetail.model_json_schema()
    body = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    body.pop("$defs")
    schemas |= {"ErrorDetail": detail, "ErrorBody": body}
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    document["security"] = [{"bearer": []}, {"header": []}, {}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete_operation(operation, path)
    return document


def _complete_operation(operation: dict[str, Any], path: str) -> None:
    answers = operation.setdefault("responses", {})
    answers.pop("422", None)  # what FastAPI would answer by itself: here it is a 400
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    if path in OPEN_PATHS:
        operation["security"] = []
        answers.setdefault("503", {"description": "Not now.", "content": {"application/json": {}}})
    for status, reason in _REASONS.items():
        answers.setdefault(str(status), {"description": reason, "content": content})
