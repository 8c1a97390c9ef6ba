"""``/v1/embeddings``."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from ramify.serving import sse
from ramify.serving.embeddings import embed
from ramify.serving.protocol.answers import documented
from ramify.serving.protocol.embeddings import EmbeddingRequest
from ramify.serving.protocol.ids import new_id
from ramify.serving.server import TheCaller, TheServer

router = APIRouter()


class ReadTokens(BaseModel):
    """Token counts of what was read."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(BaseModel):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: ReadTokens


@router.post("/v1/embeddings", **documented(Embeddings))
async def create_embeddings(request: Request, body: EmbeddingRequest, server: TheServer, caller: TheCaller) -> Response:
    """Vectors of texts."""
    return await sse.answered(request, embed(server, caller, body, new_id("embd")))
