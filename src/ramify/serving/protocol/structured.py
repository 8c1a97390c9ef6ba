"""Output constraints in a request: OpenAI's `response_format`, vLLM's `structured_outputs` and its older `guided_*`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ramify.errors import RequestError
from ramify.sampling import StructuredOutputsParams
from ramify.serving.protocol.api_model import ApiModel

MAX_CHOICES = 4096
MAX_GRAMMAR = 2**20
"""Characters; the server's own limit is lower."""
Grammar = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR)]
Choice = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR)]
Choices = Annotated[list[Choice], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]


class StructuredOutputs(ApiModel):
    """What the output must be like: exactly one of these."""

    json_schema: dict[str, Any] | Grammar | None = Field(None, alias="json", description="A JSON schema.")
    json_object: bool | None = None
    regex: Grammar | None = None
    choice: Choices | None = None
    grammar: Grammar | None = Field(None, description="In Lark's syntax as llguidance reads it, or llama.cpp's EBNF.")
    structural_tag: dict[str, Any] | Grammar | None = Field(None, description="Free text with parts of a form.")


class JsonSchemaFormat(ApiModel):
    """OpenAI's named schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=4096)] | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(ApiModel):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(ApiModel):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaResponseFormat(ApiModel):
    """JSON of a schema, always enforced, strict or not."""

    type: Literal["json_schema"]
    json_schema: JsonSchemaFormat


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaResponseFormat, Field(discriminator="type")]


class StructuredFields(ApiModel):
    """All ways of asking for a form of the output; at most one may be used."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | Grammar | None = None
    guided_regex: Grammar | None = None
    guided_choice: Choices | None = None
    guided_grammar: Grammar | None = None

    def structure(self) -> StructuredOutputsParams | None:
        """The one constraint that is asked for.

        Raises:
            RequestError: there are several.
        """
        found = [*self._of_format(), *self._of_structured_outputs(), *self._guided()]
        if len(found) > 1:
            names = ", ".join(name for name, _ in found)
            raise RequestError(f"the output can have one form, and the request asks for several ({names}): choose one")
        return StructuredOutputsParams(**found[0][1]) if found else None

    def _of_format(self) -> list[tuple[str, dict[str, Any]]]:
        wanted = self.response_format
        if isinstance(wanted, JsonObjectFormat):
            return [("response_format", {"json_object": True})]
        if isinstance(wanted, JsonSchemaResponseFormat):
            schema = wanted.json_schema.schema_
            return [("response_format", {"json_object": True} if schema is None else {"json": schema})]
        return []

    def _of_structured_outputs(self) -> list[tuple[str, dict[str, Any]]]:
        if self.structured_outputs is None:
            return []
        given = self.structured_outputs.model_dump(by_alias=True, exclude_none=True)
        if given.get("json_object") is False:
            del given["json_object"]
        if not given:
            raise RequestError("structured_outputs is empty: give one of json, json_object, regex, choice, grammar")
        return [(f"structured_outputs.{name}", {name: value}) for name, value in given.items()]

    def _guided(self) -> list[tuple[str, dict[str, Any]]]:
        given = {kind: getattr(self, f"guided_{kind}") for kind in ("json", "regex", "choice", "grammar")}
        return [(f"guided_{kind}", {kind: value}) for kind, value in given.items() if value is not None]
