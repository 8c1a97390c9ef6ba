"""The requests of ``/tokenize`` and ``/detokenize``, as vLLM has them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ramify.errors import RequestError
from ramify.serving.protocol.api_model import ApiModel
from ramify.serving.protocol.base import MAX_TOKEN_IDS, TokenId
from ramify.serving.protocol.chat import MAX_MESSAGES, ChatMessage, Scalar
from ramify.serving.protocol.tools import MAX_TOOLS, Tool

ModelName = Annotated[str, Field(min_length=1, max_length=1024)]


class TokenizeRequest(ApiModel):
    """A text, or a conversation: exactly one of `prompt` and `messages`."""

    model: ModelName | None = Field(None, description="Which model; the first of /v1/models without it.")
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    add_special_tokens: bool | None = Field(None, description="By default for a prompt, and not for messages.")
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: Annotated[dict[str, Scalar], Field(max_length=32)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    return_token_strs: bool | None = Field(None, description="Give each token's text too.")

    def check(self) -> None:
        """Raises RequestError: there is no text, or two."""
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("give either prompt (text) or messages (a conversation)")


class DetokenizeRequest(ApiModel):
    """Token ids."""

    model: ModelName | None = Field(None, description="Which model; the first of /v1/models without it.")
    tokens: Annotated[list[TokenId], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)]
