"""The admin API: control of a running server, on a port of its own and behind a key of its own.

Nothing here is a route of the public application, and no client's key opens anything here.
"""

from __future__ import annotations

import hmac
import logging
from importlib.metadata import version
from typing import Annotated, Any

import msgspec.structs
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, ConfigDict, Field

from ramify.serving.api import metrics
from ramify.serving.auth import Caller, digest_of, refused
from ramify.serving.config import ServerConfig, is_loopback
from ramify.serving.edge import LOOPBACK_NAMES, Edge, EdgeRules, SecurityHeaders
from ramify.serving.errors import ApiError, install_error_handlers
from ramify.serving.keys import KeyLimits
from ramify.serving.server import Server, TheServer
from ramify.serving.storage.records import StoredKey

_log = logging.getLogger(__name__)
router = APIRouter()
ADMIN = Caller("admin", "admin")


def create_admin_app(server: Server) -> FastAPI:
    """The application of the admin port. It starts and ends nothing: the server's own does."""
    app = FastAPI(
        title="ramify admin", version=version("ramify"), docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.server = server
    install_error_handlers(app, [router])
    app.include_router(router)
    app.include_router(metrics.router)
    app.add_middleware(Edge, rules=admin_rules(server.config))
    app.add_middleware(SecurityHeaders)
    return app


def admin_rules(config: ServerConfig) -> EdgeRules:
    """What the admin port lets through: the admin key; without one, this machine only and no pages of a browser."""
    expected = None if config.admin_key is None else digest_of(config.admin_key.encode())

    def gate(token: bytes | None) -> Caller:
        presented = digest_of(token or b"")
        if expected is not None and not hmac.compare_digest(expected, presented):
            raise refused(token)
        return ADMIN

    hosts = LOOPBACK_NAMES if expected is None and is_loopback(config.admin_host) else frozenset[str]()
    return EdgeRules(gate, config.limits, lambda: hosts, open_paths=frozenset())


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ModelName(_Body):
    """Which model."""

    model: str


class RequestIds(_Body):
    """Which requests, by the ids of their answers."""

    request_ids: Annotated[list[str], Field(min_length=1, max_length=1024)]


class NewKey(_Body):
    """A key to make; see `KeyLimits`. Times are Unix seconds."""

    name: str
    owner: str | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=2**31)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=2**53)] | None = None
    models: list[str] | None = None
    min_priority: Annotated[int, Field(ge=-(2**31), le=2**31)] | None = 0
    expires_at: Annotated[float, Field(ge=0, le=2**53)] | None = None


@router.get("/models")
async def list_models(server: TheServer) -> dict[str, Any]:
    """All models: state, users, memory, and why one failed."""
    return {"models": server.models.describe()}


@router.post("/models/load")
async def load_model(body: ModelName, server: TheServer) -> dict[str, Any]:
    """Load a configured model now."""
    await server.models.load(body.model)
    return {"models": server.models.describe()}


@router.post("/models/unload")
async def unload_model(body: ModelName, server: TheServer) -> dict[str, Any]:
    """Give an idle model's memory back; the next request for it loads it again."""
    await server.models.unload(body.model)
    return {"models": server.models.describe()}


@router.get("/keys")
async def list_keys(server: TheServer) -> dict[str, Any]:
    """All stored keys, by age; the keys themselves are kept nowhere."""
    return {"keys": [key_card(key) for key in await server.storage.keys.list()]}


@router.post("/keys", status_code=201)
async def create_key(body: NewKey, server: TheServer) -> dict[str, Any]:
    """Make a key; this answer is the only place where it ever stands."""
    models = None if body.models is None else tuple(body.models)
    limits = KeyLimits(body.requests_per_minute, body.tokens_per_minute, models, body.min_priority)
    token, stored = await server.keys.create(body.name, body.owner, limits, body.expires_at)
    _log.info("key %r was made", stored.name)
    return {**key_card(stored), "key": token}


@router.delete("/keys/{name}")
async def revoke_key(name: str, server: TheServer) -> dict[str, Any]:
    """End a key now."""
    if not await server.keys.revoke(name):
        raise ApiError(404, f"there is no key {name[:64]!r} that is still good", code="key_not_found")
    _log.info("key %r was revoked", name)
    return {"name": name, "revoked": True}


@router.post("/drain", status_code=202)
async def drain(server: TheServer) -> dict[str, Any]:
    """Turn new requests away; what runs goes on. The process stays until it is told to end."""
    server.draining.begin()
    return _stats(server)


@router.post("/pause")
async def pause(server: TheServer) -> dict[str, Any]:
    """Start nothing new: requests wait in the queue."""
    server.admissions.set_paused(True)
    return _stats(server)


@router.post("/resume")
async def resume(server: TheServer) -> dict[str, Any]:
    """Go on after a pause."""
    server.admissions.set_paused(False)
    return _stats(server)


@router.post("/abort_requests")
async def abort_requests(body: RequestIds, server: TheServer) -> dict[str, Any]:
    """End generations by the ids of their answers ("chatcmpl-...", "cmpl-..."); their clients are told so."""
    return {"aborted": [each for each in body.request_ids if await server.models.abort(each)]}


@router.post("/reset_prefix_cache")
async def reset_prefix_cache(server: TheServer) -> dict[str, Any]:
    """Forget the prefixes that are cached, of all models."""
    await server.models.forget_prefixes()
    return {"reset": True}


@router.get("/stats")
async def stats(server: TheServer) -> dict[str, Any]:
    """What runs, waits and is held now."""
    return _stats(server)


def key_card(key: StoredKey) -> dict[str, Any]:
    """What may be told of a key."""
    times = {"created_at": key.created_at, "expires_at": key.expires_at, "revoked_at": key.revoked_at}
    return {"id": key.id, "name": key.name, "owner": key.owner, **key.limits, **times}


def _stats(server: Server) -> dict[str, Any]:
    engines = {name: msgspec.structs.asdict(stats) for name, stats in server.models.stats().items()}
    return {
        "draining": server.draining.begun,
        "paused": server.admissions.paused,
        "requests_running": server.draining.running,
        "engines": engines,
    }
