"""What the API answers, for its OpenAPI document. The answers themselves are made as plain data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Reason = Literal["stop", "length", "tool_calls"]


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorDetail


class CachedTokens(BaseModel):
    """Of the prompt."""

    cached_tokens: int


class ReasoningTokens(BaseModel):
    """Of the answers."""

    reasoning_tokens: int


class Usage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens


class TextLogprobs(BaseModel):
    """Parallel lists, one entry a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptLogprob(BaseModel):
    """One token at one position of the prompt."""

    logprob: float
    rank: int
    decoded_token: str


class TextChoice(BaseModel):
    """One answer."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Reason | None
    stop_reason: str | int | None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class _Head(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: Usage


class Completion(_Head):
    """A text completion."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class TokenLogprob(BaseModel):
    """One token."""

    token: str
    logprob: float
    bytes: list[int]


class TopLogprob(TokenLogprob):
    """One token of the answer, and the likeliest at its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """Of an answer's tokens."""

    content: list[TopLogprob]
    refusal: None


class CalledFunction(BaseModel):
    """What is called; the arguments are JSON text."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """One call."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason
    stop_reason: str | int | None
    token_ids: list[int] | None = None


class ChatCompletion(_Head):
    """A chat completion."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None
    prompt_token_ids: list[int] | None = None


class ModelCard(BaseModel):
    """One model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(BaseModel):
    """All models that the caller may use."""

    object: Literal["list"]
    data: list[ModelCard]


class Tokens(BaseModel):
    """A text's tokens."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(BaseModel):
    """The text of tokens."""

    prompt: str


class TokenizerInfo(BaseModel):
    """A tokenizer, in the names of Hugging Face's configuration."""

    tokenizer_class: str
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    vocab_size: int
    model_max_length: int
    chat_template: str | None


def documented(answer: type[BaseModel], *, streams: bool = False) -> dict[str, Any]:
    """The options of a route that describe its answer and its errors."""
    ok: dict[str, Any] = {"model": answer, "description": "The answer."}
    if streams:
        events = {"type": "string", "description": "Server-sent events; the last one is [DONE]."}
        ok["content"] = {"text/event-stream": {"schema": events}}
    wrong = {"model": Error, "description": "The request is wrong, or comes too early; Retry-After says when again."}
    failed = {"model": Error, "description": "The server cannot serve it now, or failed."}
    return {"responses": {200: ok, "4XX": wrong, "5XX": failed}, "response_model": None}
