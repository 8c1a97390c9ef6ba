"""The request of ``/v1/responses``: OpenAI's fields; what cannot be honoured here takes its default alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, field_validator

from ramify.errors import RequestError
from ramify.sampling import MAX_LOGPROBS
from ramify.serving.protocol.api_model import ApiModel
from ramify.serving.protocol.base import MAX_METADATA, MAX_MODEL_LENGTH, MAX_TIMEOUT_S, MAX_TOKENS, WithoutEffect
from ramify.serving.protocol.chat import ContentPart, MediaPart
from ramify.serving.protocol.ramify_field import RamifyField
from ramify.serving.protocol.tools import MAX_TOOLS, FunctionName

MAX_ITEMS = 65536
MAX_CONTENT_PARTS = 4096
MAX_INCLUDED = 16
Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]
Parts = Annotated[list[ContentPart], Field(max_length=MAX_CONTENT_PARTS, fail_fast=True)]


class _Item(ApiModel):
    """An item of the input. Fields that only a server sets are taken back and passed over."""

    model_config = ConfigDict(extra="ignore")

    id: Id | None = None
    status: Status | None = None


class MessageItem(_Item):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Parts


class TextOf(ApiModel):
    """A piece of a thought."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(_Item):
    """What was thought before the next message or call."""

    type: Literal["reasoning"]
    summary: Annotated[list[TextOf], Field(max_length=MAX_CONTENT_PARTS, fail_fast=True)] | None = None
    content: Annotated[list[TextOf], Field(max_length=MAX_CONTENT_PARTS, fail_fast=True)] | None = None
    encrypted_content: None = Field(None, description="Not supported: thoughts are given in the open.")


class FunctionCallItem(_Item):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: Id
    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    arguments: str


class FunctionCallOutputItem(_Item):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: Id
    output: str | Parts


InputItem = Annotated[
    MessageItem | ReasoningItem | FunctionCallItem | FunctionCallOutputItem, Field(discriminator="type")
]


class FunctionTool(ApiModel):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: Annotated[str, Field(max_length=2**20)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(ApiModel):
    """One function."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(ApiModel):
    """Only these of the tools may be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class PlainText(ApiModel):
    """Any text."""

    type: Literal["text"]


class JsonObject(ApiModel):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(ApiModel):
    """JSON of a schema."""

    type: Literal["json_schema"]
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: dict[str, Any] = Field(alias="schema")
    description: Annotated[str, Field(max_length=4096)] | None = None
    strict: bool | None = None


class TextConfig(ApiModel):
    """The form of the answer's text."""

    format: Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(ApiModel):
    """How hard to think. Thoughts are given whole, never as a summary."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None


class StreamOptions(ApiModel):
    """Options of a stream."""

    include_obfuscation: bool | None = Field(None, description="Accepted; nothing is padded.")


class ResponseRequest(WithoutEffect):
    """Answer an input, in a conversation that the server may keep."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_LENGTH)] = Field(
        description="A name of /v1/models; NAME@METHOD:OPTION=VALUE,... lets a method answer."
    )
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
    instructions: str | None = Field(None, description="A system message for this response alone.")
    previous_response_id: Id | None = Field(None, description="The stored response that this one goes on from.")
    store: bool | None = Field(None, description="Keep the response (the default).")
    background: bool | None = Field(None, description="Answer at once, work on; GET says how it stands.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = Field(None, description="Thoughts included.")
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63)] | None = Field(
        None, description="The same seed gives the same tokens, whatever else the server does."
    )
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = Field(
        None, description="Accepted: it limits built-in tools, of which there are none."
    )
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["disabled"] | None = Field(None, description="Input that does not fit is refused.")
    include: Annotated[list[Literal["message.output_text.logprobs"]], Field(max_length=MAX_INCLUDED)] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, StringConstraints(max_length=64)],
                Annotated[str, StringConstraints(max_length=512)],
            ],
            Field(max_length=MAX_METADATA),
        ]
        | None
    ) = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = Field(None, description="Lower runs first.")
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] | None = None
    ramify: RamifyField | None = Field(None, description="The inference-time method that answers.")
    conversation: None = Field(None, description="Not supported: use previous_response_id.")
    prompt: None = Field(None, description="Not supported: there are no stored prompts.")
    context_management: None = None
    moderation: None = None

    @field_validator("input", mode="before")
    @classmethod
    def _say_the_type(cls, given: Any) -> Any:
        """Messages may leave out their type."""
        if not isinstance(given, list):
            return given
        return [
            {**item, "type": "message"} if isinstance(item, dict) and item.get("type") is None else item
            for item in given
        ]

    @field_validator("tools", mode="before")
    @classmethod
    def _name_what_is_not_there(cls, given: Any) -> Any:
        """Built-in tools are refused by their name."""
        for tool in given if isinstance(given, list) else ():
            if isinstance(tool, dict) and isinstance(kind := tool.get("type"), str) and kind != "function":
                raise ValueError(f"there is no tool of type {kind[:80]!r} here: give functions")
        return given

    @property
    def kept(self) -> bool:
        """Whether the response is stored."""
        return self.store is not False

    def check(self) -> None:
        """Raises RequestError: fields contradict each other."""
        if self.background and not self.kept:
            raise RequestError("a background response has to be stored: leave out 'store': false")
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options need 'stream': true")
        self._check_parts()
        if isinstance(self.tool_choice, AllowedTools):
            names = {tool.name for tool in self.tools or ()}
            for tool in self.tool_choice.tools:
                if tool.name not in names:
                    raise RequestError(f"tool_choice allows {tool.name!r}, which is not among the tools")

    def _check_parts(self) -> None:
        for place, item in enumerate(self.input if isinstance(self.input, list) else ()):
            field = {"message": "content", "function_call_output": "output"}.get(item.type)
            parts = getattr(item, field) if field else ()
            for number, part in enumerate(parts if isinstance(parts, list) else ()):
                if isinstance(part, MediaPart):
                    raise RequestError(
                        f"input.{place}.{field}.{number} is of type {part.type!r} and the models here read text only: "
                        "send text parts"
                    )
