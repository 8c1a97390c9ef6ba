"""How much the storage keeps, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ramify.errors import ConfigError

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class StorageLimits:
    """Limits of a storage. Immutable; validated when made.

    Attributes:
        quota_bytes: what an owner's files, responses and traces may take together; 0 is no limit.
        file_retention_s: a file without `expires_after` is kept so long; 0 is for ever.
        response_retention_s: the same of stored responses.
        trace_retention_s: the same of traces.

    Raises:
        ConfigError: a value is negative.
    """

    quota_bytes: int = 0
    file_retention_s: float = 0.0
    response_retention_s: float = 30 * DAY_S
    trace_retention_s: float = 7 * DAY_S

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if not value >= 0:
                raise ConfigError(f"{option.name}={value!r} does not work: it must be 0 or more")


def expiry(now: float, retention_s: float | None, default_s: float) -> float | None:
    """When a record made now ends; None is never."""
    kept_s = default_s if retention_s is None else retention_s
    return now + kept_s if kept_s else None
