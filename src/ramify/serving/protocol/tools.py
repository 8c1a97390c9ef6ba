"""Tools in a chat request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ramify.serving.protocol.api_model import ApiModel

MAX_TOOLS = 1024
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class FunctionDefinition(ApiModel):
    """A function that the model may call."""

    name: FunctionName
    description: Annotated[str, Field(max_length=2**20)] | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of the arguments.")
    strict: bool | None = Field(None, description="The arguments must be of the schema.")


class Tool(ApiModel):
    """A tool; only functions are known."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(ApiModel):
    """The name of one function."""

    name: FunctionName


class NamedToolChoice(ApiModel):
    """This function must be called."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedToolChoice
