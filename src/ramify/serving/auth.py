"""Who calls: keys, and what each may do."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from ramify.serving.errors import ApiError


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        name: of the key, for logs and metrics; "anonymous" without keys.
        owner: whose files, batches, responses and traces it sees; keys of one owner share them.
        cache_salt: prefixes are shared only among requests of one salt, so that timing tells nothing of others.
        models: public names that it may use; None is all.
        min_priority: the most urgent (smallest) priority that it may ask for; None is any.
    """

    name: str = "anonymous"
    owner: str = "anonymous"
    cache_salt: str = ""
    models: frozenset[str] | None = None
    min_priority: int | None = None

    def may_use(self, model: str) -> bool:
        """Whether it may use a model."""
        return self.models is None or model in self.models

    def check_model(self, model: str) -> None:
        """Raises ApiError: 403, the key may not use it."""
        if not self.may_use(model):
            raise ApiError(
                403, f"this key may not use model {model!r}: ask for it to be allowed", param="model", code="model_denied"
            )


def the_caller(request: Request) -> Caller:
    """The caller of a request, for routes: ``caller: TheCaller``."""
    caller: Caller = getattr(request.state, "caller", Caller())
    return caller
