"""Whether the server lives, whether it is ready, what it is and how much it has to do."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from ramify.serving.server import Server, TheServer

router = APIRouter(tags=["operations"])
VERSION = version("ramify")
_DEAD = {"failed", "restarting"}


@router.get("/health")
@router.get("/ping")
async def health(server: TheServer) -> JSONResponse:
    """200 while the process and all engines live; 503 while one is dead, also if another one is being started."""
    return _answer(server, "failing" if _DEAD & set(server.models.states().values()) else "ok")


@router.get("/ready")
async def ready(server: TheServer) -> JSONResponse:
    """200 while new requests are welcome: models are loaded, no engine is dead, and the server is not ending."""
    states = set(server.models.states().values())
    if server.draining.begun:
        return _answer(server, "draining")
    return _answer(server, "not ready" if _DEAD & states or states == {"starting"} else "ok")


def _answer(server: Server, status: str) -> JSONResponse:
    """Which models there are is nobody's business who needs a key and has none."""
    said: dict[str, Any] = {"status": status}
    if not server.keys.needed:
        said["models"] = server.models.states()
    return JSONResponse(said, 200 if status == "ok" else 503)


@router.get("/version")
async def the_version() -> dict[str, str]:
    """The version that runs."""
    return {"version": VERSION}


@router.get("/load")
async def load(server: TheServer) -> dict[str, Any]:
    """How much there is to do, in all and by model."""
    queues = server.admissions.states()
    models = {
        name: {
            "running": stats.running,
            "waiting": stats.waiting + (queues[name].waiting if name in queues else 0),
            "kv_cache_usage": round(stats.blocks_used / max(1, stats.blocks_total), 4),
        }
        for name, stats in server.models.stats().items()
    }
    return {"server_load": server.draining.running, "models": models}
