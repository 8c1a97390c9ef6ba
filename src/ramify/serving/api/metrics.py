"""``/metrics``: what Prometheus reads."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ramify.serving.server import TheServer

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request, server: TheServer) -> Response:
    """All metrics, as text; on a thread, for there are thousands of lines."""
    body, content_type = server.metrics.exposition(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})
