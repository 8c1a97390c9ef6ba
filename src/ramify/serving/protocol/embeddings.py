"""The request of ``/v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ramify.serving.protocol.api_model import ApiModel
from ramify.serving.protocol.base import MAX_MODEL_LENGTH, MAX_TIMEOUT_S, MAX_TOKEN_IDS
from ramify.serving.protocol.completions import OnePrompt, TokenList

MAX_DIMENSIONS = 2**20


class ScoringFields(ApiModel):
    """What requests share that read texts and write none."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_LENGTH)] = Field(description="A name of /v1/models.")
    user: Annotated[str, Field(max_length=1024)] | None = Field(None, description="Without effect.")
    truncate_prompt_tokens: None = Field(None, description="Not supported: nothing is cut off.")
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = Field(None, description="Lower runs first.")
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Cached prefixes are shared only among requests of one salt."
    )
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] | None = Field(
        None, description="Seconds after which the answer is of no use."
    )


class EmbeddingRequest(ScoringFields):
    """Vectors of texts."""

    input: (
        str
        | TokenList
        | Annotated[list[str], Field(min_length=1, max_length=MAX_TOKEN_IDS, fail_fast=True)]
        | Annotated[list[TokenList], Field(min_length=1, max_length=MAX_TOKEN_IDS, fail_fast=True)]
    ) = Field(description="Text, token ids, or a list of either.")
    encoding_format: Literal["float", "base64"] | None = Field(None, description="base64 is of little-endian float32.")
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = Field(
        None, description="The first so many numbers, at unit length; of models that were trained for it."
    )

    def inputs(self) -> list[OnePrompt]:
        """Each input by itself: text or ids."""
        given: Any = self.input
        return [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)
