"""`answer`: one call of an endpoint without HTTP, for batches: the same reading, the same checks, the whole answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from ramify.errors import RequestError
from ramify.serving.auth import Caller
from ramify.serving.chat import complete_chat
from ramify.serving.completions import complete_text
from ramify.serving.embeddings import embed
from ramify.serving.errors import ApiError
from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.protocol.completions import CompletionRequest
from ramify.serving.protocol.embeddings import EmbeddingRequest
from ramify.serving.protocol.responses import ResponseRequest
from ramify.serving.protocol.scores import RerankRequest, ScoreRequest
from ramify.serving.scores import rerank, score
from ramify.serving.server import Server

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
TEXT = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
SCORE = "/v1/score"
RERANK = "/v1/rerank"
Body = TypeVar("Body", bound=BaseModel)
Answerer = Callable[[Server, Caller, Mapping[str, Any], str], Awaitable[dict[str, Any]]]


async def answer(
    server: Server, caller: Caller, endpoint: str, body: Mapping[str, Any], request_id: str
) -> dict[str, Any]:
    """What the endpoint answers to a body.

    Raises:
        ApiError: 404, there is no such endpoint; 400, the body wants a stream.
        RequestValidationError, RequestError, SamplingParamsError: the body is wrong.
        EngineError: it failed while it ran.
    """
    answerer = ANSWERERS.get(endpoint)
    if answerer is None:
        known = ", ".join(ANSWERERS)
        raise ApiError(404, f"url {endpoint[:200]!r} is not supported here: use one of {known}", code="unknown_url")
    if body.get("stream"):
        raise RequestError("a batch has no streams: leave stream out")
    return await answerer(server, caller, body, request_id)


def read(kind: type[Body], body: Mapping[str, Any]) -> Body:
    """A body as its model.

    Raises:
        RequestValidationError: it does not fit; the same that a route raises.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(), body=body) from None


async def _chat(server: Server, caller: Caller, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return await complete_chat(server, caller, read(ChatRequest, body), request_id)


async def _text(server: Server, caller: Caller, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return await complete_text(server, caller, read(CompletionRequest, body), request_id)


async def _embeddings(server: Server, caller: Caller, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return await embed(server, caller, read(EmbeddingRequest, body), request_id)


async def _score(server: Server, caller: Caller, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return await score(server, caller, read(ScoreRequest, body), request_id)


async def _rerank(server: Server, caller: Caller, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return await rerank(server, caller, read(RerankRequest, body), request_id)


async def _response(server: Server, caller: Caller, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    request = read(ResponseRequest, body)
    if request.background:
        raise RequestError("a batch runs in the background already: leave background out")
    return await server.responses.complete(caller, request)


ANSWERERS: dict[str, Answerer] = {
    CHAT: _chat, TEXT: _text, EMBEDDINGS: _embeddings, SCORE: _score, RERANK: _rerank, RESPONSES: _response
}  # fmt: skip
