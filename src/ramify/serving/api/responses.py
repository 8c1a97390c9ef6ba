"""``/v1/responses``: answers in conversations that the server keeps (see `ramify.serving.responses`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from ramify.errors import RequestError
from ramify.serving import sse
from ramify.serving.errors import ApiError
from ramify.serving.protocol.answers import documented
from ramify.serving.protocol.lists import listed
from ramify.serving.protocol.response_answers import ItemList, ResponseDeleted, ResponseObject
from ramify.serving.protocol.responses import ResponseRequest
from ramify.serving.server import TheCaller, TheServer

router = APIRouter()
MAX_PAGE = 100
DEFAULT_PAGE = 20


@router.post("/v1/responses", **documented(ResponseObject, streams=True))
async def create_response(request: Request, body: ResponseRequest, server: TheServer, caller: TheCaller) -> Response:
    """Answer an input; a stream of typed events with `stream`, at once and going on with `background`."""
    runs, limits = server.responses, server.config.limits
    if body.background:
        run = await runs.start(caller, body)
        if body.stream:
            return sse.stream(limits, run.follow())
        return _json(run.turn.builder.snapshot())
    if body.stream:
        return sse.stream(limits, runs.stream(caller, body))
    return await sse.answered(request, runs.complete(caller, body))


@router.get("/v1/responses/{response_id}", **documented(ResponseObject, streams=True))
async def retrieve_response(
    response_id: str,
    server: TheServer,
    caller: TheCaller,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0)] = None,
    include: Annotated[list[str] | None, Query(max_length=16)] = None,
    include_obfuscation: bool | None = None,
) -> Response:
    """How a response stands; with `stream` the events of a background response, from the first or behind a number."""
    if stream:
        await server.responses.get(caller, response_id)
        return sse.stream(server.config.limits, server.responses.follow(caller, response_id, starting_after))
    if starting_after is not None:
        raise RequestError("starting_after is the place in a stream: it needs stream=true")
    return _json(await server.responses.get(caller, response_id))


@router.delete("/v1/responses/{response_id}", **documented(ResponseDeleted))
async def delete_response(response_id: str, server: TheServer, caller: TheCaller) -> Response:
    """Delete a response; one that runs is ended."""
    await server.responses.delete(caller, response_id)
    return _json({"id": response_id, "object": "response", "deleted": True})


@router.post("/v1/responses/{response_id}/cancel", **documented(ResponseObject))
async def cancel_response(response_id: str, server: TheServer, caller: TheCaller) -> Response:
    """End a background response."""
    return _json(await server.responses.cancel(caller, response_id))


@router.get("/v1/responses/{response_id}/input_items", **documented(ItemList))
async def list_input_items(
    response_id: str,
    server: TheServer,
    caller: TheCaller,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    order: Literal["asc", "desc"] = "desc",
    include: Annotated[list[str] | None, Query(max_length=16)] = None,
) -> Response:
    """What a response answers, earlier turns included; the latest first."""
    items = await server.responses.input_items(caller, response_id)
    if order == "desc":
        items.reverse()
    if after is not None:
        place = next((place for place, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise ApiError(404, f"there is no item {after[:80]!r} in this response's input", param="after")
        items = items[place + 1 :]
    return _json(listed(items[:limit], len(items) > limit))


def _json(data: Any) -> Response:
    return Response(sse.encode(data), media_type="application/json")
