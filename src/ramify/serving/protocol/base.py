"""What the requests of chat and text completions share: the sampling fields with their bounds, and how they become
`SamplingParams`.

A field that would change the answer is honoured or refused by name: unknown fields are errors, and those that are known
and change nothing are listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from ramify.sampling import MAX_LOGPROBS, MAX_N, MAX_STOP_STRINGS, SamplingParams
from ramify.serving.protocol.api_model import ApiModel
from ramify.serving.protocol.ramify_field import RamifyField

MAX_MODEL_LENGTH = 32_768
"""Characters; a name may hold a method with its options."""
MAX_TOKENS = 2**31 - 1
MAX_TIMEOUT_S = 7 * 24 * 3600
MAX_TOKEN_IDS = 2**20
"""Ids in one list of a request."""
MAX_LOGIT_BIAS = 1024
MAX_STOP_LENGTH = 4096
MAX_METADATA = 16
"""Entries, as the OpenAI API has it."""


def _whole(value: float) -> int:
    """In JSON, 5.0 is the integer 5."""
    if not value.is_integer():
        raise ValueError("Input should be a whole number")
    return int(value)


if TYPE_CHECKING:
    TokenId = int
else:  # a number of either form that becomes an int; long lists of ints never leave pydantic's compiled code
    TokenId = Annotated[
        Annotated[int, Field(ge=0, lt=2**31)] | Annotated[float, Field(ge=0, lt=2**31), AfterValidator(_whole)],
        Field(union_mode="left_to_right"),
        WithJsonSchema({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}),
    ]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_LENGTH)]
TokenNumber = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}$")]


class StreamOptions(ApiModel):
    """What a stream tells besides text."""

    include_usage: bool | None = Field(None, description="A last event with the token counts.")
    continuous_usage_stats: bool | None = Field(None, description="Token counts so far in every event.")
    include_obfuscation: bool | None = Field(None, description="Accepted; nothing is padded.")


class WithoutEffect(ApiModel):
    """Fields of the OpenAI API that do not change an answer here, and values that say what happens anyway."""

    user: Annotated[str, Field(max_length=1024)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA)] | None = None
    store: bool | None = None
    service_tier: Annotated[str, Field(max_length=64)] | None = None
    safety_identifier: Annotated[str, Field(max_length=1024)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=1024)] | None = None
    prompt_cache_retention: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_options: dict[str, Any] | None = None
    use_beam_search: Literal[False] | None = None
    length_penalty: Literal[1] | None = None
    early_stopping: Literal[False] | None = None
    spaces_between_special_tokens: Literal[True] | None = None
    truncate_prompt_tokens: None = None
    logits_processors: None = None


class SamplingFields(WithoutEffect):
    """How the tokens are drawn: OpenAI's names, then vLLM's."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_LENGTH)] = Field(
        description="A name of /v1/models; NAME@METHOD:OPTION=VALUE,... lets a method answer."
    )
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[dict[TokenNumber, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_LOGIT_BIAS)] | None
    ) = Field(None, description="Token id -> number added to its logit.")
    seed: Annotated[int, Field(ge=-(2**63), le=2**63)] | None = Field(
        None, description="The same seed gives the same tokens, whatever else the server does."
    )
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = Field(None, description="Only with `stream`.")
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_LOGIT_BIAS, fail_fast=True)] | None = None
    allowed_token_ids: (
        Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKEN_IDS, fail_fast=True)] | None
    ) = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    add_special_tokens: bool | None = Field(None, description="Put the tokens that start a text in front of it.")
    return_token_ids: bool | None = Field(None, description="Give the ids of prompt and answer too.")
    return_tokens_as_token_ids: bool | None = Field(None, description='Name tokens "token_id:5" in logprobs.')
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = Field(None, description="Lower runs first.")
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Cached prefixes are shared only among requests of one salt."
    )
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] | None = Field(
        None, description="Seconds after which the answer is of no use: it is cut then, and may not wait for longer."
    )
    ramify: RamifyField | None = Field(
        None, description="The inference-time method that answers, or the branch that the draws belong to."
    )

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every event of a stream has the token counts."""
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)


_SAME_NAME = (
    "n", "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop", "top_k", "min_p", "typical_p",
    "repetition_penalty", "min_tokens", "stop_token_ids", "allowed_token_ids", "ignore_eos", "skip_special_tokens",
    "include_stop_str_in_output", "prompt_logprobs",
)  # fmt: skip


def sampling_params(body: SamplingFields, **more: Any) -> SamplingParams:
    """The shared fields as the engine takes them; `more` are those that each endpoint names in its own way.

    Raises:
        SamplingParamsError: two fields contradict each other.
    """
    given = {name: value for name in _SAME_NAME if (value := getattr(body, name)) is not None}
    if body.logit_bias:
        given["logit_bias"] = {int(token): bias for token, bias in body.logit_bias.items()}
    return SamplingParams(**{**given, **more})
