"""One turn: a request that was understood, and its answer event by event out of the chat's own stream."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ramify.serving import sse
from ramify.serving.auth import Caller
from ramify.serving.errors import ApiError, as_api_error
from ramify.serving.protocol.chat import ChatRequest
from ramify.serving.protocol.responses import ResponseRequest
from ramify.serving.responses.builder import Event, ResponseBuilder
from ramify.serving.responses.items import given_items
from ramify.serving.responses.request import new_response, read_chat_request
from ramify.serving.responses.store import Record, ResponseStore

if TYPE_CHECKING:
    from ramify.serving.server import Server

_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


@dataclass(frozen=True, slots=True)
class Turn:
    """A response's request, ready to be answered.

    Attributes:
        caller: who asks.
        body: the request.
        chat: the chat request that answers it.
        builder: the response as it grows.
        record: what is stored of it.
    """

    caller: Caller
    body: ResponseRequest
    chat: ChatRequest
    builder: ResponseBuilder
    record: Record

    @property
    def response(self) -> dict[str, Any]:
        """The object as it is now."""
        return self.builder.response

    @property
    def id(self) -> str:
        """Of the response."""
        return str(self.response["id"])


async def new_turn(server: Server, store: ResponseStore, caller: Caller, body: ResponseRequest) -> Turn:
    """Check a request and gather its conversation.

    Raises:
        ApiError, RequestError, RequestValidationError: it cannot be served.
    """
    body.check()
    earlier = await store.conversation(caller.owner, body.previous_response_id)
    items = given_items(body.input)
    number, limit = len(earlier) + len(items), server.config.limits.max_messages
    if number > limit:
        raise ApiError(400, f"the conversation has {number:,} items and this server allows {limit:,}", param="input")
    chat = read_chat_request(body, [*earlier, *items])
    response = new_response(body, f"resp_{secrets.token_hex(24)}", body.model)
    return Turn(caller, body, chat, ResponseBuilder(response), Record(response, items))


async def chunks_of(server: Server, turn: Turn) -> AsyncGenerator[dict[str, Any]]:
    """The chunks of the chat's stream that answers a turn.

    Raises:
        ApiError, RequestError, SamplingParamsError, EngineError: the chat cannot be served, or failed.
    """
    from ramify.serving.chat_stream import chat_chunks  # which is made of what takes a Server

    async with aclosing(chat_chunks(server, turn.caller, turn.chat, turn.id)) as news:
        async for chunks in news:
            for chunk in chunks:
                yield chunk


async def events_of(server: Server, turn: Turn) -> AsyncGenerator[list[Event]]:
    """What becomes known of the answer, from the first token to the last; the end is the caller's to tell."""
    async with aclosing(chunks_of(server, turn)) as chunks:
        async for chunk in chunks:
            yield turn.builder.feed(chunk)


def failed(turn: Turn, error: Exception) -> list[Event]:
    """The events of a turn that went wrong."""
    told = as_api_error(error)
    return turn.builder.fail(_CODES.get(told.status, "server_error"), told.message)


def encoded(events: list[Event]) -> bytes:
    """Events as they are sent."""
    piece = b"".join(b"event: " + str(event["type"]).encode() + b"\n" + sse.event(event) for event in events)
    return sse.TextEvents(piece) if any(event["type"].endswith(".delta") for event in events) else piece
