"""``/metrics``: what Prometheus reads."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ramify.serving.server import TheServer

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, server: TheServer) -> Response:
    """All metrics, as text."""
    body, content_type = await server.metrics.scrape(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})
