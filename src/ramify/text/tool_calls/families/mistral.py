"""Mistral: ``[TOOL_CALLS][{"name": ..., "arguments": ...}]``, and from tokenizer version 11 on
``[TOOL_CALLS]name[ARGS]{...}`` for each call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import Cursor, read_call_list, read_named_call
from ramify.text.tool_calls.grammar import GrammarWriter
from ramify.text.tool_calls.ids import short_id

_OPEN, _ARGUMENTS, _ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class _EitherForm(ToolFormat):
    openers: ClassVar[tuple[str, ...]] = (_OPEN,)
    inner_marks: ClassVar[tuple[str, ...]] = (_ARGUMENTS, _ID)

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """One call, or a list of them."""
        if (yield from cursor.space()) == "[":
            yield from read_call_list(cursor)
            return
        name = yield from cursor.word(lambda char: char.isalnum() or char in "_-.")
        if (yield from cursor.space()) == "[" and (yield from cursor.either((_ARGUMENTS, _ID))) == _ID:
            yield from cursor.until(_ARGUMENTS, _LONGEST_ID)
        yield from read_named_call(cursor, name)

    def call_id(self, name: str, index: int) -> str:
        """Nine letters and digits: the templates refuse others."""
        return short_id()


@register("mistral", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Mistral(_EitherForm):
    """A JSON array behind ``[TOOL_CALLS]`` (Mistral 7B v0.3, Nemo, Large 2)."""

    name: ClassVar[str] = "mistral"

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        return f"{writer.text('[')} {writer.call_list(tools, several)}"


@register("mistral_v11", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class MistralNamed(_EitherForm):
    """``[TOOL_CALLS]name[ARGS]{...}`` for each call (Mistral Small 3.2, Magistral, Devstral, Ministral 3)."""

    name: ClassVar[str] = "mistral_v11"
    between: ClassVar[str | None] = ""

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return _OPEN in template and _ARGUMENTS in template

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        marked = writer.mark(_ARGUMENTS)
        return writer.one_of(f"{writer.text(tool.name)} {marked} {writer.arguments(tool)}" for tool in tools)
