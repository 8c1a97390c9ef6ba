"""``/v1/kv``: the map of a model's KV pool, for the dashboard."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ramify.serving.server import TheCaller, TheServer

router = APIRouter(tags=["operations"])


@router.get("/v1/kv/{model:path}")
async def kv_map(model: str, server: TheServer, caller: TheCaller) -> dict[str, Any]:
    """The state of each KV block of a model, a letter each: f free, c cached, h held by one sequence, s by several."""
    async with server.models.use(model, caller) as served:
        engine = served.engine
        return {"model": model, "block_size": engine.config.block_size, "blocks": await engine.kv_map()}
