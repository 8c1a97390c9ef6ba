"""The request of ``/v1/completions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ramify.errors import RequestError
from ramify.sampling import MAX_LOGPROBS, MAX_N, SamplingParams
from ramify.serving.protocol.base import MAX_TOKEN_IDS, MAX_TOKENS, SamplingFields, TokenId, sampling_params
from ramify.serving.protocol.structured import StructuredFields

TokenList = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKEN_IDS, fail_fast=True)]
MAX_PROMPTS = 2048
OnePrompt = str | list[int]


class CompletionRequest(SamplingFields, StructuredFields):
    """Continue a text, or several."""

    prompt: (
        str
        | TokenList
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | Annotated[list[TokenList], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    ) = Field(description="Text, token ids, or a list of either.")
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = Field(16, description="0 only scores the prompt.")
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = Field(None, description="Put the prompt in front; with logprobs, its tokens' too.")
    best_of: Annotated[int, Field(ge=1, le=MAX_N)] | None = Field(
        None, description="Draw so many and give the n of the highest mean log-probability; not with stream."
    )
    suffix: Literal[""] | None = Field(None, description="Not supported: there is no infilling.")

    def prompts(self) -> list[OnePrompt]:
        """Each prompt by itself: text or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        first = self.prompt[0]
        return [self.prompt] if isinstance(first, int) else list(self.prompt)  # type: ignore[arg-type, list-item]

    def params(self) -> SamplingParams:
        """As the engine takes them, for one prompt.

        Raises:
            RequestError, SamplingParamsError: fields contradict each other.
        """
        self._check()
        more: dict[str, object] = {"max_tokens": self.max_tokens, "logprobs": self.logprobs}
        if self.best_of is not None and self.best_of > 1:
            more["n"] = self.best_of
            more["logprobs"] = self.logprobs or 0
        if self.echo and self.logprobs is not None and self.prompt_logprobs is None:
            more["prompt_logprobs"] = self.logprobs
        return sampling_params(self, structured_outputs=self.structure(), **more)

    def _check(self) -> None:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise RequestError(f"best_of={self.best_of} is less than n={self.n}: draw at least as many as you want")
        if self.best_of is not None and self.best_of > 1 and self.stream:
            raise RequestError("best_of does not stream, for the best is known at the end: leave out one of the two")
        if self.ramify is not None and self.ramify.branch_key is not None and len(self.prompts()) > 1:
            raise RequestError("ramify.branch_key names the draws of one prompt: send one prompt a request")
        check_stream_options(self)


def check_stream_options(body: SamplingFields) -> None:
    """Raises RequestError: stream_options without a stream."""
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options is for streams: set stream to true, or leave it out")
