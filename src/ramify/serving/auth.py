"""Who calls: keys, and what each may do."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        name: of the key, for logs and metrics; "anonymous" without keys.
        cache_salt: prefixes are shared only among requests of one salt, so that timing tells nothing of others.
    """

    name: str = "anonymous"
    cache_salt: str = ""


def the_caller(request: Request) -> Caller:
    """The caller of a request, for routes: ``caller: TheCaller``."""
    caller: Caller = getattr(request.state, "caller", Caller())
    return caller
