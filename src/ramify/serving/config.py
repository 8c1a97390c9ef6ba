"""`ServerConfig`: every option of the server in one place.

The fields are the one source of the command line's flags, the RAMIFY_ variables, the keys of a configuration file and
the table in the docs (see `options`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ramify.errors import ConfigError
from ramify.serving.limits import Limits

DEFAULT_PORT = 8000
_NOT_NEGATIVE = (
    "drain_timeout_s", "request_timeout_s", "model_memory_gib", "max_waiting", "max_waiting_tokens", "max_wait_s",
)  # fmt: skip
MAX_PORT = 65535


def option(default: Any, text: str, *, secret: bool = False) -> Any:
    """An option with its line of help; a secret is not in the object's text."""
    return field(default=default, repr=not secret, metadata={"help": text, "secret": secret})


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Options of one server. Immutable; validated when made. The help of each stands with its field.

    Attributes:
        models: public name -> what to load: a bundled name, a checkpoint's folder, or a hub id; the default first.
        engine: options of every engine, fields of `EngineConfig`.
        limits: what a request may ask for at most.

    Raises:
        ConfigError: a value cannot work, or two contradict each other.
    """

    models: Mapping[str, str]
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 is every network of this machine.")
    port: int = option(DEFAULT_PORT, "Port to listen on; 0 takes a free one.")
    uds: str | None = option(None, "Unix socket to listen on, instead of host and port.")
    ssl_certfile: str | None = option(None, "TLS certificate chain (PEM); a renewed file is taken up by itself.")
    ssl_keyfile: str | None = option(None, "Its private key (PEM).")
    ssl_min_version: Literal["1.2", "1.3"] = option("1.2", "Oldest version of TLS to speak.")
    api_key: tuple[str, ...] = option((), "Key that clients must send; several may be given.", secret=True)
    api_key_file: str | None = option(None, "File with one such key a line, instead of the command line.")
    allowed_hosts: tuple[str, ...] = option(
        (), "Names that a request's Host may have; by default any, but only loopback's on loopback without keys."
    )
    allowed_origins: tuple[str, ...] = option((), "Web pages (https://host) that may call from a browser; none.")
    admin_host: str = option("127.0.0.1", "Address of the admin port.")
    admin_port: int | None = option(None, "Port of the admin API (models, keys, drain); without it there is none.")
    admin_key: str | None = option(None, "Key of the admin API; needed where admin_host is not loopback.", secret=True)
    storage_url: str = option(
        "",
        "Database of files, batches, responses and keys: a path (SQLite; ~/.local/state/ramify) or postgresql://...",
        secret=True,  # it may hold a password
    )
    storage_quota_bytes: int = option(0, "What one tenant may store; 0 is no limit.")
    file_retention_days: float = option(0.0, "Days to keep a file that names no end of its own; 0 is for ever.")
    response_retention_days: float = option(30.0, "Days to keep stored responses; 0 is for ever.")
    trace_retention_days: float = option(7.0, "Days to keep traces of methods; 0 is for ever.")
    batch_concurrency: int = option(64, "Lines of batches that run at once.")
    model_memory_gib: float | None = option(None, "Memory for models; idle ones are unloaded to make room for others.")
    tool_call_parser: str | None = option(None, "How the models write tool calls; by default found from the template.")
    reasoning_parser: str | None = option(None, "How the models mark their reasoning; by default found likewise.")
    request_timeout_s: float | None = option(None, "Seconds until an unfinished request fails; a client may ask less.")
    max_waiting: int = option(1024, "Requests that may wait for a place in the engine; further ones get 429.")
    max_waiting_tokens: int | None = option(None, "Prompt tokens that may wait so; by default any number.")
    max_waiting_share: float = option(0.5, "Of both, what one tenant may take.")
    max_wait_s: float | None = option(None, "Seconds that a request may have to wait; with a longer queue it gets 429.")
    drain_timeout_s: float = option(30.0, "Seconds that running requests have to end after SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = option("info", "Least severe of what is logged.")
    log_format: Literal["text", "json"] = option("text", "Lines for people, or one JSON object a line.")
    log_prompts: bool = option(False, "Log prompts and answers too.")
    otlp_endpoint: str | None = option(None, "Where OpenTelemetry traces go, e.g. http://127.0.0.1:4318.")
    limits: Limits = field(
        default_factory=Limits,
        metadata={"help": "Bound of a request, NAME=VALUE (see the docs); several may be given."},
    )
    engine: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("there is no model to serve: name at least one")
        for name in self.models:
            if not name or "@" in name or not name.isprintable() or " " in name:
                raise ConfigError(f"model name {name!r} does not work: it must be text without spaces and without '@'")
        self._check_network()
        if not 0 < self.max_waiting_share <= 1:
            raise ConfigError(f"max_waiting_share={self.max_waiting_share} does not work: it is more than 0, at most 1")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"{name}={value} does not work: it must not be negative")

    def _check_network(self) -> None:
        for name in ("port", "admin_port"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_PORT:
                raise ConfigError(f"{name}={value} does not work: ports are 0 (any free one) to {MAX_PORT}")
        if self.port and self.port == self.admin_port:
            raise ConfigError(f"port and admin_port are both {self.port}: they must differ")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ConfigError("TLS needs both ssl_certfile and ssl_keyfile: give the other one too")
        if self.admin_port is not None and self.admin_key is None and not is_loopback(self.admin_host):
            raise ConfigError(
                f"the admin port would be open to everybody who reaches {self.admin_host}: "
                "give an admin_key, or leave admin_host on 127.0.0.1"
            )
        if self.admin_key is not None and self.admin_key in self.api_key:
            raise ConfigError("admin_key is also an api_key: clients would hold the control of the server")
        for origin in self.allowed_origins:
            if not origin.startswith(("http://", "https://")) or "*" in origin or origin.count("/") != 2:
                raise ConfigError(
                    f"allowed_origins: {origin!r} does not work: name pages as https://HOST, without '*' and path"
                )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. Names other than localhost may be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
