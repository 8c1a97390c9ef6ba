"""``/v1/models``: what is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ramify.serving.server import TheServer

router = APIRouter()


@router.get("/v1/models")
async def list_models(server: TheServer) -> dict[str, Any]:
    """The models, the default first."""
    data = []
    for name in server.models.names():
        async with server.models.use(name) as model:
            card = {"id": name, "object": "model", "created": model.created_s, "owned_by": "ramify"}
            data.append({**card, "max_model_len": model.max_model_len})
    return {"object": "list", "data": data}
