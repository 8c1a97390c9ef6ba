"""``/v1/completions``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from ramify.serving import sse
from ramify.serving.completions import complete_text, stream_text
from ramify.serving.protocol.answers import Completion, documented
from ramify.serving.protocol.completions import CompletionRequest
from ramify.serving.protocol.ids import new_id
from ramify.serving.server import TheCaller, TheServer

router = APIRouter()


@router.post("/v1/completions", **documented(Completion, streams=True))
async def create_completion(
    request: Request, body: CompletionRequest, server: TheServer, caller: TheCaller
) -> Response:
    """Continue a text, or several; a stream of events with `stream`."""
    request_id = new_id("cmpl")
    if body.stream:
        return sse.stream(server.config.limits, stream_text(server, caller, body, request_id))
    return await sse.answered(request, complete_text(server, caller, body, request_id))
