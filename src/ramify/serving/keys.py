"""`Keys`: which key a request was sent with, and what it may do.

Two sorts: those of the configuration, and those of the storage, which are made and revoked while servers run. Of both
only digests are held. Once there is one key, whoever sends none is refused; revoking the last one opens nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ramify.errors import ConfigError, RamifyError, RequestError
from ramify.serving.auth import ANONYMOUS, Caller, digest_of, new_token, refused, salt_of
from ramify.serving.config import ServerConfig
from ramify.serving.rates import Rates
from ramify.serving.storage import Storage
from ramify.serving.storage.records import StoredKey

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SHORT = 16
REFRESH_S = 3.0
"""A key that another process made or revoked in the storage counts after so long at most."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may do; None is no bound.

    Attributes:
        requests_per_minute, tokens_per_minute: at least 1; prompt and answer tokens together.
        models: public names that it may use.
        min_priority: the smallest, most urgent `priority` that it may ask for.

    Raises:
        RequestError: a value cannot work.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    models: tuple[str, ...] | None = None
    min_priority: int | None = 0

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name}={value} does not work: it must be 1 or more, or left out")

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> KeyLimits:
        """The limits in a stored key."""
        models = stored.get("models")
        return cls(**{**stored, "models": None if models is None else tuple(models)})


@dataclass(frozen=True, slots=True)
class _Known:
    """A key in memory; `expires_at` is Unix seconds."""

    digest: bytes
    caller: Caller
    expires_at: float | None = None
    revoked: bool = False

    def good(self) -> bool:
        return not self.revoked and (self.expires_at is None or time.time() < self.expires_at)


class Keys:
    """The keys of a server.

    Args:
        config: keys that hold as long as the process.
        storage: has the others.
    """

    def __init__(self, config: ServerConfig, storage: Storage) -> None:
        self._configured = [_configured(key) for key in configured_keys(config)]
        self._storage = storage
        self._stored: list[_Known] = []
        self._refresher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the stored keys, and go on reading them."""
        await self.refresh()
        self._refresher = asyncio.create_task(self._keep_fresh(), name="keys")

    async def close(self) -> None:
        """Stop reading."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)

    @property
    def needed(self) -> bool:
        """Whether requests need a key. Revoked and expired ones count: closed stays closed."""
        return bool(self._configured or self._stored)

    def identify(self, token: bytes | None) -> Caller:
        """Whose token it is. All keys are compared in constant time, whichever it is, also after one that fits.

        Raises:
            ApiError: 401, a key is needed and this is none, or no longer.
        """
        if not self.needed:
            return Caller()
        presented = digest_of(token or b"")
        found: _Known | None = None
        for known in (*self._configured, *self._stored):
            if hmac.compare_digest(known.digest, presented):
                found = known
        if token is None or found is None or not found.good():
            raise refused(token)
        return found.caller

    def caller_named(self, name: str) -> Caller:
        """The caller that a key's name stands for: for work that outlives its request.

        Raises:
            ApiError: 401, the key was revoked, has expired or is gone.
        """
        if name == ANONYMOUS and not self.needed:
            return Caller()
        for known in (*self._configured, *self._stored):
            if known.caller.name == name and known.good():
                return known.caller
        raise refused(b"a key that is gone")

    async def create(
        self,
        name: str,
        owner: str | None = None,
        limits: KeyLimits | None = None,
        expires_at: float | None = None,
    ) -> tuple[str, StoredKey]:
        """Make a key. The token is returned once and kept nowhere.

        Raises:
            RequestError: the name is taken or not of letters, digits, '.', '_' and '-'.
        """
        token, stored = await create_key(self._storage, name, owner, limits, expires_at)
        await self.refresh()
        return token, stored

    async def revoke(self, name: str) -> bool:
        """End a key now; False if there is none of this name that is still good."""
        done = await self._storage.keys.revoke(name)
        await self.refresh()
        return done

    async def refresh(self) -> None:
        """Read the storage. Keys that are as they were keep their rates' state."""
        before = {known.digest: known for known in self._stored}
        self._stored = [_known(key, before.get(key.digest)) for key in await self._storage.keys.list()]

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Exception as error:
                unforeseen = None if isinstance(error, RamifyError) else error
                _log.error("the keys in the storage cannot be read, those known stay: %s", error, exc_info=unforeseen)


async def create_key(
    storage: Storage, name: str, owner: str | None, limits: KeyLimits | None, expires_at: float | None
) -> tuple[str, StoredKey]:
    """Put a new key into a storage; gives the token, which is kept nowhere, and what is stored.

    Raises:
        RequestError: a name is taken or not of letters, digits, '.', '_' and '-'.
    """
    owner = name if owner is None else owner
    for text in (name, owner):
        if not _NAME.fullmatch(text) or text == ANONYMOUS:
            raise RequestError(f"name {text!r} does not work: use up to 64 letters, digits, '.', '_' and '-'")
    if expires_at is not None and expires_at <= time.time():
        raise RequestError("the key would have expired already: give a time to come")
    token = new_token()
    stored = await storage.keys.add(name, digest_of(token.encode()), owner, asdict(limits or KeyLimits()), expires_at)
    return token, stored


def configured_keys(config: ServerConfig) -> list[str]:
    """The keys of the options and of the key file, which has one a line; lines with '#' in front are comments.

    Raises:
        ConfigError: the file cannot be read or holds none, or a key is not printable ASCII without spaces.
    """
    keys = list(config.api_key)
    if config.api_key_file is not None:
        try:
            lines = Path(config.api_key_file).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"api_key_file {config.api_key_file!r} cannot be read: {error}") from error
        read = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not read:
            raise ConfigError(f"api_key_file {config.api_key_file!r} holds no key: the server would be open")
        keys += read
    for key in keys:
        if not (key and key.isascii() and key.isprintable() and " " not in key):
            raise ConfigError("an api_key is empty or has spaces or other characters that no header can carry")
        if len(key) < _SHORT:
            _log.warning("an api_key has %d characters and may be guessed: `ramify keys create` makes better", len(key))
    return list(dict.fromkeys(keys))


def _configured(key: str) -> _Known:
    """Named by its digest, so that it is the same tenant after a restart."""
    digest = digest_of(key.encode())
    name = f"key-{digest.hex()[:12]}"
    return _Known(digest, Caller(name, name, salt_of(name)))


def _known(key: StoredKey, before: _Known | None) -> _Known:
    limits = KeyLimits.of(key.limits)
    caller = Caller(
        name=key.name,
        owner=key.owner,
        cache_salt=salt_of(key.owner),
        models=None if limits.models is None else frozenset(limits.models),
        min_priority=limits.min_priority,
        rates=before.caller.rates if before else Rates(limits.requests_per_minute, limits.tokens_per_minute),
    )
    return _Known(key.digest, caller, key.expires_at, key.revoked_at is not None)
