"""Who calls: `Caller`, what each may do, and the tokens that name one."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from fastapi import Request

from ramify.serving.errors import ApiError
from ramify.serving.rates import Rates

ANONYMOUS = "anonymous"
TOKEN_PREFIX = "rmf-"
_SECRET_BYTES = 32
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        name: of the key, for logs and metrics; "anonymous" without keys.
        owner: whose files, batches, responses and traces it sees; keys of one owner share them.
        cache_salt: prefixes are shared only among requests of one salt, so that timing tells nothing of others.
        models: public names that it may use; None is all.
        min_priority: the most urgent (smallest) priority that it may ask for; None is any.
        rates: requests and tokens a minute.
    """

    name: str = ANONYMOUS
    owner: str = ANONYMOUS
    cache_salt: str = ""
    models: frozenset[str] | None = None
    min_priority: int | None = None
    rates: Rates = field(default_factory=lambda: Rates(None, None), compare=False, repr=False)

    def may_use(self, model: str) -> bool:
        """Whether it may use a model."""
        return self.models is None or model in self.models

    def check_model(self, model: str) -> None:
        """Raises ApiError: 403, the key may not use it."""
        if not self.may_use(model):
            message = f"this key may not use model {model!r}: ask whoever gave it to you to allow it"
            raise ApiError(403, message, param="model", code="model_denied")

    def check_priority(self, priority: int) -> None:
        """Raises ApiError: 403, the key may not be so urgent."""
        if self.min_priority is not None and priority < self.min_priority:
            message = f"priority={priority} is more urgent than this key may be: use {self.min_priority} or more"
            raise ApiError(403, message, param="priority", code="priority_denied")


def the_caller(request: Request) -> Caller:
    """The caller of a request, for routes: ``caller: TheCaller``. There is always one: `Edge` lets nobody else in."""
    caller: Caller = request.state.caller
    return caller


def salt_of(owner: str) -> str:
    """The prefix cache's salt of a tenant; not secret, for a client's own salt is hashed together with it."""
    return hashlib.sha256(f"tenant\n{owner}".encode()).hexdigest()


def new_token() -> str:
    """A key: 256 random bits, behind a mark that scanners of leaked secrets can look for."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(token: bytes) -> bytes:
    """What is kept of a key. A fast hash is enough: no speed helps against 2^256 tokens, unlike against passwords."""
    return hashlib.blake2b(token, digest_size=32, person=b"ramify-api-key").digest()


def presented_token(headers: Headers) -> bytes | None:
    """The token in ``Authorization: Bearer`` or ``x-api-key``; None if there is none.

    Raises:
        ApiError: 400, there are two different ones.
    """
    found: set[bytes] = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                found |= {token.strip()} - {b""}  # clients without a key send the word alone
        elif name == b"x-api-key" and value.strip():
            found.add(value.strip())
    if len(found) > 1:
        raise ApiError(400, "the request names two different keys: send one", code="invalid_api_key")
    return found.pop() if found else None


def refused(token: bytes | None) -> ApiError:
    """The one answer to whoever has no valid key; it does not say what is wrong with the one that was sent."""
    what = "the key is not valid" if token else "a key is needed: send 'Authorization: Bearer KEY'"
    return ApiError(401, what, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
