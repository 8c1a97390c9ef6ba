"""``/v1/batches``: files of requests, answered in the background (see `ramify.serving.batches`)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from ramify.errors import RequestError
from ramify.serving.errors import ApiError
from ramify.serving.protocol.batches import BatchCreate, batch_object, window_s
from ramify.serving.protocol.lists import listed
from ramify.serving.server import TheCaller, TheServer
from ramify.serving.storage.records import BatchRequest

router = APIRouter()
MAX_PAGE = 100
DEFAULT_PAGE = 20


@router.post("/v1/batches")
async def create_batch(server: TheServer, caller: TheCaller, body: BatchCreate) -> dict[str, Any]:
    """Answer all requests of an uploaded file."""
    kept = body.output_expires_after
    batch = await server.storage.batches.create(
        BatchRequest(
            owner=caller.owner,
            caller=caller.name,
            endpoint=body.endpoint,
            input_file_id=body.input_file_id,
            completion_window=body.completion_window,
            expires_after_s=window_s(body.completion_window),
            metadata=body.metadata,
            seed=body.seed,
            output_retention_s=None if kept is None else float(kept.seconds),
        )
    )
    server.batches.look()
    return batch_object(batch)


@router.get("/v1/batches")
async def list_batches(
    server: TheServer,
    caller: TheCaller,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
) -> dict[str, Any]:
    """The caller's batches, the latest first."""
    page = await server.storage.batches.list(caller.owner, after=after, limit=limit)
    return listed([batch_object(batch) for batch in page.items], page.has_more)


@router.get("/v1/batches/{batch_id}")
async def retrieve_batch(server: TheServer, caller: TheCaller, batch_id: str) -> dict[str, Any]:
    """How a batch stands."""
    batch = await server.storage.batches.get(caller.owner, batch_id)
    if batch is None:
        raise _not_found(batch_id)
    return batch_object(batch)


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel_batch(server: TheServer, caller: TheCaller, batch_id: str) -> dict[str, Any]:
    """Stop a batch; what is done goes to its files."""
    try:
        batch = await server.storage.batches.cancel(caller.owner, batch_id)
    except RequestError as error:
        raise ApiError(409, str(error), code="batch_not_cancellable") from error
    if batch is None:
        raise _not_found(batch_id)
    server.batches.look()
    return batch_object(batch)


def _not_found(batch_id: str) -> ApiError:
    return ApiError(404, f"there is no batch {batch_id[:100]!r}", param="batch_id", code="not_found")
