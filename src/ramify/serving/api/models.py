"""``/v1/models``: what is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ramify.serving.server import TheCaller, TheServer

router = APIRouter()


@router.get("/v1/models")
async def list_models(server: TheServer, caller: TheCaller) -> dict[str, Any]:
    """The models that the caller may use, the default first."""
    data = []
    for name in filter(caller.may_use, server.models.names()):
        async with server.models.use(name, caller) as model:
            card = {"id": name, "object": "model", "created": model.created_s, "owned_by": "ramify"}
            data.append({**card, "max_model_len": model.max_model_len})
    return {"object": "list", "data": data}
