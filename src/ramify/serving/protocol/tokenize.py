"""The requests of ``/tokenize`` and ``/detokenize``, as vLLM has them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ramify.serving.protocol.api_model import ApiModel
from ramify.serving.protocol.base import MAX_TOKEN_IDS, TokenId
from ramify.serving.protocol.chat import MAX_MESSAGES, ChatMessage, Scalar
from ramify.serving.protocol.tools import MAX_TOOLS, Tool

ModelName = Annotated[str, Field(min_length=1, max_length=1024)]


class _Tokenize(ApiModel):
    model: ModelName | None = Field(None, description="Which model; the first of /v1/models without it.")
    return_token_strs: bool | None = Field(None, description="Give each token's text too.")


class TokenizeText(_Tokenize):
    """A text."""

    prompt: str
    add_special_tokens: bool | None = Field(None, description="Put the tokens that start a text in front (default).")


class TokenizeChat(_Tokenize):
    """A conversation."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    add_special_tokens: bool | None = Field(None, description="In front of what the template wrote; not by default.")
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: Annotated[dict[str, Scalar], Field(max_length=32)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None


TokenizeRequest = TokenizeText | TokenizeChat


class DetokenizeRequest(ApiModel):
    """Token ids."""

    model: ModelName | None = Field(None, description="Which model; the first of /v1/models without it.")
    tokens: Annotated[list[TokenId], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)]
