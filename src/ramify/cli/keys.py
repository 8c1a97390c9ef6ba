"""`ramify keys`: API keys in a server's storage. A running server takes changes up within seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ramify.cli import common
from ramify.errors import RequestError

if TYPE_CHECKING:
    from ramify.serving.storage import Storage
    from ramify.serving.storage.records import StoredKey

T = TypeVar("T")
DAY_S = 86400.0
app = typer.Typer(help="Make, list and revoke API keys of a server.", no_args_is_help=True)
StorageUrl = Annotated[
    str,
    typer.Option(
        "--storage-url", envvar="RAMIFY_STORAGE_URL", show_envvar=True, help="The server's; see `ramify serve --help`."
    ),
]
Name = Annotated[str, typer.Argument(help="Letters, digits, '.', '_' and '-'.")]


@app.command("create")
def create(
    name: Name,
    owner: Annotated[
        str | None, typer.Option(help="Tenant: its keys share files and records; by default NAME.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests a minute; unlimited.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Prompt and answer tokens a minute.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Model that it may use; repeatable; all.")] = None,
    min_priority: Annotated[int, typer.Option(help="The most urgent (smallest) priority that it may ask for.")] = 0,
    days: Annotated[float | None, typer.Option(min=0.001, help="Days until it expires; never.")] = None,
    storage_url: StorageUrl = "",
    json: common.Json = False,
) -> None:
    """Make a key and print it. It is kept nowhere: only a hash of it is stored."""
    from ramify.serving.keys import KeyLimits, create_key

    models = None if model is None else tuple(model)
    limits = KeyLimits(requests_per_minute, tokens_per_minute, models, min_priority)
    expires_at = None if days is None else time.time() + days * DAY_S
    token, key = _in_storage(storage_url, lambda storage: create_key(storage, name, owner, limits, expires_at))
    if json:
        common.print_json({**_card(key), "key": token})
    else:
        common.say("the key, shown this once:")
        typer.echo(token)


@app.command("list")
def list_keys(storage_url: StorageUrl = "", json: common.Json = False) -> None:
    """List the keys, by age."""
    for key in _in_storage(storage_url, lambda storage: storage.keys.list()):
        card = _card(key)
        if json:
            common.print_json(card)
        else:
            limits = " ".join(f"{name}={value}" for name, value in key.limits.items() if value is not None)
            typer.echo(f"{key.name}  owner={key.owner}  {card['state']}  {limits}".rstrip())


@app.command("revoke")
def revoke(name: Name, storage_url: StorageUrl = "") -> None:
    """End a key. Servers refuse it within seconds."""
    if not _in_storage(storage_url, lambda storage: storage.keys.revoke(name)):
        raise RequestError(f"there is no key named {name!r} that is still good: see `ramify keys list`")
    common.say(f"{name} is revoked")


def _card(key: StoredKey) -> dict[str, object]:
    state = "good"
    if key.revoked_at is not None:
        state = f"revoked {_day(key.revoked_at)}"
    elif key.expires_at is not None:
        state = f"{'expired' if key.expires_at <= time.time() else 'good until'} {_day(key.expires_at)}"
    return {"name": key.name, "owner": key.owner, "state": state, "created": _day(key.created_at), **key.limits}


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _in_storage(url: str, work: Callable[[Storage], Awaitable[T]]) -> T:
    from ramify.serving.storage import Storage

    async def run() -> T:
        storage = Storage(url)
        await storage.start()
        try:
            return await work(storage)
        finally:
            await storage.close()

    return asyncio.run(run())
