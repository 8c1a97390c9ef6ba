"""The request of ``/v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ramify.errors import RequestError
from ramify.sampling import MAX_LOGPROBS, SamplingParams
from ramify.serving.protocol.api_model import ApiModel
from ramify.serving.protocol.base import MAX_TOKENS, SamplingFields, sampling_params
from ramify.serving.protocol.completions import check_stream_options
from ramify.serving.protocol.structured import StructuredFields
from ramify.serving.protocol.tools import MAX_TOOLS, NamedToolChoice, Tool, ToolChoice

MAX_MESSAGES = 16384
MAX_PARTS = 4096
Scalar = str | bool | int | float | None


class TextPart(ApiModel):
    """A piece of a message's text."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    def plain(self) -> str:
        """Its text."""
        return (self.text if self.type != "refusal" else self.refusal) or ""


class MediaPart(ApiModel):
    """A piece that is no text; refused by models that read text only."""

    model_config = ConfigDict(extra="allow")

    type: Literal["image_url", "input_image", "input_audio", "audio_url", "video_url", "file", "input_file"]


ContentPart = Annotated[TextPart | MediaPart, Field(discriminator="type")]


class CalledFunction(ApiModel):
    """What an assistant called."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str | dict[str, Any] | None = Field(None, description="JSON text.")


class ToolCall(ApiModel):
    """A call in an assistant's message."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[str, Field(max_length=256)] | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(ApiModel):
    """One message. Further fields go to the model's chat template as they are."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    reasoning_content: str | None = Field(None, description="An earlier answer's, where the template reads it.")
    reasoning: str | None = Field(None, description="The same by its other name.")
    prefix: bool | None = Field(None, description="On the last message: the answer goes on inside it.")


class ChatRequest(SamplingFields, StructuredFields):
    """Answer a conversation."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = Field(
        None, description="Up to the context's end without it. The older name of max_completion_tokens."
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(None, description="Needs logprobs.")
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    thinking_token_budget: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = Field(None, description="Open the assistant's turn (the default).")
    continue_final_message: bool | None = Field(None, description="Go on inside the last message.")
    chat_template_kwargs: Annotated[dict[str, Scalar], Field(max_length=32)] | None = Field(
        None, description="Names for the template, of those that the server allows."
    )
    chat_template: None = Field(None, description="Not supported: a model's own template is used.")
    echo: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None
    prediction: dict[str, Any] | None = Field(None, description="Accepted; it does not change the answer.")

    @property
    def continues(self) -> bool:
        """Whether the answer goes on inside the last message."""
        return bool(self.continue_final_message or self.messages[-1].prefix)

    def params(self, **more: Any) -> SamplingParams:
        """As the engine takes them.

        Raises:
            RequestError, SamplingParamsError: fields contradict each other.
        """
        self.check()
        more.setdefault("structured_outputs", self.structure())
        return sampling_params(
            self,
            max_tokens=self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            **more,
        )

    def check(self) -> None:
        """Raises RequestError: fields contradict each other."""
        check_stream_options(self)
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs needs 'logprobs': true")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and both[0] != both[1]:
            raise RequestError(
                f"max_tokens={both[0]} and max_completion_tokens={both[1]} mean the same and differ: give one"
            )
        self._check_continuation()
        self._check_tools()

    def _check_continuation(self) -> None:
        for place, message in enumerate(self.messages[:-1]):
            if message.prefix:
                raise RequestError(f"messages.{place} has prefix, which only the last message may have")
        if not self.continues:
            return
        if self.messages[-1].role != "assistant":
            raise RequestError(
                f"the last message is of the {self.messages[-1].role}; only an assistant's message can be continued"
            )
        if self.add_generation_prompt:
            raise RequestError(
                "add_generation_prompt opens a new turn and continue_final_message goes on in the last: choose one"
            )

    def _check_tools(self) -> None:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise RequestError("two tools have one name: name each differently")
        choice = self.tool_choice
        if isinstance(choice, NamedToolChoice) and choice.function.name not in names:
            raise RequestError(f"tool_choice names {choice.function.name!r}, which is not among the tools")
        if choice == "required" and not names:
            raise RequestError("tool_choice is 'required' and there are no tools: give some")
