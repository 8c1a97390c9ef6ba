"""``/v1/models``: what is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ramify.serving.auth import Caller
from ramify.serving.protocol.answers import ModelCard, ModelList, documented
from ramify.serving.server import Server, TheCaller, TheServer

router = APIRouter()


@router.get("/v1/models", **documented(ModelList))
async def list_models(server: TheServer, caller: TheCaller) -> dict[str, Any]:
    """The models that the caller may use, the default first."""
    names = [name for name in server.models.names() if caller.may_use(name)]
    return {"object": "list", "data": [_card(server, caller, name) for name in names]}


@router.get("/v1/models/{model:path}", **documented(ModelCard))
async def retrieve_model(model: str, server: TheServer, caller: TheCaller) -> dict[str, Any]:
    """One model."""
    return _card(server, caller, model)


def _card(server: Server, caller: Caller, name: str) -> dict[str, Any]:
    facts, created_s = server.models.facts(name, caller)
    return {
        "id": name,
        "object": "model",
        "created": created_s,
        "owned_by": "ramify",
        "max_model_len": facts.max_model_len,
    }
