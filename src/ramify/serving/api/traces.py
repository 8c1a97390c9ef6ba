"""``/v1/traces``: what methods did, event by event, as they stored it while they ran."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from ramify.serving.errors import ApiError
from ramify.serving.protocol.lists import listed
from ramify.serving.server import Server, TheCaller, TheServer
from ramify.serving.storage.records import Order, StoredTrace
from ramify.serving.uploads import content_disposition

router = APIRouter()
MAX_PAGE = 100
DEFAULT_PAGE = 20


@router.get("/v1/traces")
async def list_traces(
    server: TheServer,
    caller: TheCaller,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
    order: Order = "desc",
) -> dict[str, Any]:
    """The caller's traces."""
    page = await server.storage.traces.list(caller.owner, after=after, limit=limit, order=order)
    return listed([trace_object(trace) for trace in page.items], page.has_more)


@router.get("/v1/traces/{trace_id}")
async def retrieve_trace(server: TheServer, caller: TheCaller, trace_id: str) -> dict[str, Any]:
    """What is known of a trace."""
    return trace_object(await _trace(server, caller.owner, trace_id))


@router.get("/v1/traces/{trace_id}/content", response_class=StreamingResponse)
async def trace_content(server: TheServer, caller: TheCaller, trace_id: str) -> StreamingResponse:
    """The events, one JSON object a line: a file that ``ramify trace`` reads."""
    trace = await _trace(server, caller.owner, trace_id)
    headers = {
        "Content-Length": str(trace.num_bytes),
        "Content-Disposition": content_disposition(f"{trace.id}.jsonl"),
    }
    return StreamingResponse(server.storage.traces.read(trace), media_type="application/jsonl", headers=headers)


@router.delete("/v1/traces/{trace_id}")
async def delete_trace(server: TheServer, caller: TheCaller, trace_id: str) -> dict[str, Any]:
    """Delete a trace."""
    if not await server.storage.traces.delete(caller.owner, trace_id):
        raise _not_found(trace_id)
    return {"id": trace_id, "object": "trace", "deleted": True}


def trace_object(trace: StoredTrace) -> dict[str, Any]:
    """A trace, without its events. "in_progress" is also what a killed server left."""
    return {
        "id": trace.id,
        "object": "trace",
        "model": trace.model,
        "strategy": trace.strategy,
        "status": "in_progress" if trace.finished_at is None else "completed",
        "bytes": trace.num_bytes,
        "created_at": int(trace.created_at),
        "finished_at": None if trace.finished_at is None else int(trace.finished_at),
        "expires_at": None if trace.expires_at is None else int(trace.expires_at),
    }


async def _trace(server: Server, owner: str, trace_id: str) -> StoredTrace:
    trace = await server.storage.traces.get(owner, trace_id)
    if trace is None:
        raise _not_found(trace_id)
    return trace


def _not_found(trace_id: str) -> ApiError:
    return ApiError(
        404, f"there is no trace {trace_id[:100]!r}: it may have expired", param="trace_id", code="not_found"
    )
