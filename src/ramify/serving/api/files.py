"""``/v1/files``: what clients upload, and what batches write. Content is streamed both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from ramify.errors import RequestError
from ramify.serving.api.upload_form import UPLOAD_SCHEMA, UploadForm
from ramify.serving.errors import ApiError
from ramify.serving.jsonl import JsonLinesCheck
from ramify.serving.protocol.lists import listed
from ramify.serving.server import Server, TheCaller, TheServer
from ramify.serving.storage.files import CHUNK_BYTES, FileWriter
from ramify.serving.storage.records import Order, StoredFile
from ramify.serving.uploads import content_disposition, form_pieces

router = APIRouter()
MAX_PAGE = 10_000


@router.post("/v1/files", openapi_extra=UPLOAD_SCHEMA)
async def upload_file(server: TheServer, caller: TheCaller, request: Request) -> dict[str, Any]:
    """Store a file: a form with `purpose`, `file` and perhaps `expires_after[anchor]` and `expires_after[seconds]`."""
    writer = await server.storage.files.writer(caller.owner)
    try:
        form = await _receive(server, request, writer)
        stored = await writer.finish(form.filename, form.purpose, form.retention_s)
    except BaseException:
        await asyncio.shield(writer.discard())
        raise
    return file_object(stored)


@router.get("/v1/files")
async def list_files(
    server: TheServer,
    caller: TheCaller,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    order: Order = "desc",
    purpose: Annotated[str | None, Query(pattern="^[a-z_-]{1,64}$")] = None,
) -> dict[str, Any]:
    """The caller's files."""
    page = await server.storage.files.list(caller.owner, after=after, limit=limit, order=order, purpose=purpose)
    return listed([file_object(file) for file in page.items], page.has_more)


@router.get("/v1/files/{file_id}")
async def retrieve_file(server: TheServer, caller: TheCaller, file_id: str) -> dict[str, Any]:
    """What is known of a file."""
    return file_object(await _file(server, caller.owner, file_id))


@router.get("/v1/files/{file_id}/content", response_class=StreamingResponse)
async def file_content(server: TheServer, caller: TheCaller, file_id: str) -> StreamingResponse:
    """A file's content, as a download."""
    file = await _file(server, caller.owner, file_id)
    headers = {"Content-Length": str(file.num_bytes), "Content-Disposition": content_disposition(file.filename)}
    return StreamingResponse(server.storage.files.read(file), media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}")
async def delete_file(server: TheServer, caller: TheCaller, file_id: str) -> dict[str, Any]:
    """Delete a file."""
    try:
        deleted = await server.storage.files.delete(caller.owner, file_id)
    except RequestError as error:
        raise ApiError(409, str(error), code="file_in_use") from error
    if not deleted:
        raise _not_found(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


def file_object(file: StoredFile) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


async def _file(server: Server, owner: str, file_id: str) -> StoredFile:
    file = await server.storage.files.get(owner, file_id)
    if file is None:
        raise _not_found(file_id)
    return file


def _not_found(file_id: str) -> ApiError:
    return ApiError(404, f"there is no file {file_id[:100]!r}: it may have expired", param="file_id", code="not_found")


async def _receive(server: Server, request: Request, writer: FileWriter) -> UploadForm:
    """Read the form; its file goes to `writer` while it arrives, checked on the way if it is a batch's."""
    limits = server.config.limits
    form, check = UploadForm(), JsonLinesCheck(limits.max_batch_requests)
    fault: RequestError | None = None
    async for data in _file_data(form, request):
        if writer.num_bytes + len(data) > limits.max_upload_bytes:
            raise ApiError(413, f"the file is longer than {limits.max_upload_bytes:,} bytes: split it", param="file")
        if fault is None and form.maybe_batch:
            try:
                await asyncio.to_thread(check.feed, data)
            except RequestError as error:
                fault = error  # the purpose may come behind the file
                form.refuse(fault)
        await writer.write(data)
    form.check()
    if form.purpose == "batch":
        try:
            await asyncio.to_thread(check.finish)
        except RequestError as error:
            fault = fault or error
        form.refuse(fault)
    return form


async def _file_data(form: UploadForm, request: Request) -> AsyncIterator[bytes]:
    """The file's content in pieces of about 1 MiB, while the form's other fields go to `form`."""
    buffer = bytearray()
    async for piece in form_pieces(request.stream(), request.headers.get("content-type", "")):
        buffer += form.take(piece)
        if len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)
