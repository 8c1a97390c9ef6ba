"""The body of ``POST /v1/batches``, and batches in OpenAI's form."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ramify.errors import RequestError
from ramify.serving.protocol.api_model import ApiModel
from ramify.serving.storage.records import LineError, StoredBatch

MAX_METADATA = 16
MAX_WINDOW_S = 30 * 86_400.0
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_WINDOW = re.compile(r"([0-9]{1,7})([smhd])", re.ASCII)
Endpoint = Literal[
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/score", "/v1/rerank"
]
Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Value = Annotated[str, StringConstraints(max_length=512)]


class ExpiresAfter(ApiModel):
    """How long files are kept."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class BatchCreate(ApiModel):
    """What a client asks for."""

    input_file_id: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    endpoint: Endpoint
    completion_window: Annotated[str, StringConstraints(max_length=16)] = Field(
        "24h", description="How long it may take: a number and s, m, h or d. Then it ends with what is done."
    )
    metadata: Annotated[dict[Key, Value], Field(max_length=MAX_METADATA)] | None = None
    output_expires_after: ExpiresAfter | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Lines without a seed draw from this one and their custom_id."
    )


def window_s(text: str) -> float:
    """Seconds of a completion window such as "24h".

    Raises:
        RequestError: it is no duration, or too long.
    """
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise RequestError(f"completion_window={text!r} does not work: use a duration of up to 30 days, such as '24h'")
    return seconds


def batch_object(batch: StoredBatch) -> dict[str, Any]:
    """OpenAI's batch object."""
    request, usage = batch.request, batch.usage
    names = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": request.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": [_error(error) for error in batch.errors]} if batch.errors else None,
        "input_file_id": request.input_file_id,
        "completion_window": request.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **{f"{name}_at": int(batch.times[name]) if name in batch.times else None for name in names},
        "request_counts": {"total": batch.num_total, "completed": batch.num_completed, "failed": batch.num_failed},
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
        "metadata": None if request.metadata is None else dict(request.metadata),
    }


def _error(error: LineError) -> dict[str, Any]:
    return {"code": error.code, "line": error.line, "message": error.message, "param": error.param}
