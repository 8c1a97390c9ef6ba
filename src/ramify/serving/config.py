"""`ServerConfig`: every option of the server in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Options of one server. Immutable; validated when made.

    Attributes:
        models: public name -> what to load: a bundled name, a checkpoint's folder, or a hub id; the default first.
        host: address to listen on; only this machine by default.
        port: 0 takes a free one.
        engine: options of every engine, fields of `EngineConfig`.
    """

    models: Mapping[str, str]
    host: str = "127.0.0.1"
    port: int = 8000
    engine: Mapping[str, Any] = field(default_factory=dict)
