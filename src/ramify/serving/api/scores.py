"""``/v1/score`` and ``/v1/rerank``, under the other paths too that clients of vLLM and Jina know them by."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from ramify.serving import sse
from ramify.serving.api.embeddings import ReadTokens
from ramify.serving.protocol.answers import documented
from ramify.serving.protocol.ids import new_id
from ramify.serving.protocol.scores import RerankRequest, ScoreRequest
from ramify.serving.scores import ScoreKind, rerank, score
from ramify.serving.server import TheCaller, TheServer

router = APIRouter()


class Score(BaseModel):
    """One text's."""

    index: int
    object: Literal["score"]
    score: float
    step_scores: list[float] | None = None


class Scores(BaseModel):
    """In the order of the request."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    score_kind: ScoreKind
    usage: ReadTokens


class Document(BaseModel):
    """A document's text."""

    text: str


class Ranked(BaseModel):
    """One document."""

    index: int
    relevance_score: float
    document: Document | None = None


class Ranking(BaseModel):
    """The best first."""

    id: str
    model: str
    results: list[Ranked]
    score_kind: ScoreKind
    usage: ReadTokens


@router.post("/score", include_in_schema=False)
@router.post("/v1/score", **documented(Scores))
async def create_scores(request: Request, body: ScoreRequest, server: TheServer, caller: TheCaller) -> Response:
    """How good answers are to a reward model, or how alike texts are to an embedding model."""
    return await sse.answered(request, score(server, caller, body, new_id("score")))


@router.post("/rerank", include_in_schema=False)
@router.post("/v2/rerank", include_in_schema=False)
@router.post("/v1/rerank", **documented(Ranking))
async def create_ranking(request: Request, body: RerankRequest, server: TheServer, caller: TheCaller) -> Response:
    """Documents by their scores for a query."""
    return await sse.answered(request, rerank(server, caller, body, new_id("rerank")))
