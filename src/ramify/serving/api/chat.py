"""``/v1/chat/completions``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from ramify.serving import sse
from ramify.serving.chat import complete_chat
from ramify.serving.chat_stream import stream_chat
from ramify.serving.protocol.answers import ChatCompletion, documented
from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.protocol.ids import new_id
from ramify.serving.server import TheCaller, TheServer

router = APIRouter()


@router.post("/v1/chat/completions", **documented(ChatCompletion, streams=True))
async def create_chat_completion(request: Request, body: ChatRequest, server: TheServer, caller: TheCaller) -> Response:
    """Answer a conversation; a stream of events with `stream`."""
    request_id = new_id("chatcmpl")
    if body.stream:
        return sse.stream(server.config.limits, stream_chat(server, caller, body, request_id))
    return await sse.answered(request, complete_chat(server, caller, body, request_id))
