"""``/v1/strategies``: the methods that a call may ask for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ramify.registry import unknown
from ramify.serving.errors import ApiError
from ramify.serving.methods.catalogue import catalogue, scorers
from ramify.serving.methods.request import EQUIVALENCES
from ramify.serving.server import TheCaller, TheServer

router = APIRouter(tags=["methods"])


@router.get("/v1/strategies")
async def list_strategies(server: TheServer, caller: TheCaller) -> dict[str, Any]:
    """All methods with their options as JSON schemas; also the scorers and equivalences that they may use."""
    limits = server.config.limits
    return {
        "object": "list",
        "data": list(catalogue()),
        "scorers": list(scorers()),
        "equivalences": list(EQUIVALENCES),
        "limits": {"max_method_tokens": limits.max_method_tokens, "max_branches": limits.max_branches},
    }


@router.get("/v1/strategies/{name}")
async def get_strategy(name: str, caller: TheCaller) -> dict[str, Any]:
    """One method."""
    for method in catalogue():
        if method["id"] == name:
            return method
    raise ApiError(404, unknown("strategy", name[:80], [each["id"] for each in catalogue()]), code="strategy_not_found")
