"""Hermes, and the many that follow it: ``<tool_call>{"name": ..., "arguments": ...}</tool_call>``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Reading, Tool
from ramify.text.tool_calls.cursor import Cursor, read_call_object
from ramify.text.tool_calls.grammar import GrammarWriter
from ramify.text.tool_calls.ids import random_id

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@register("hermes", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Hermes:
    """A JSON object between ``<tool_call>`` and ``</tool_call>`` for each call (Hermes, Qwen 2.5, Qwen 3)."""

    name: ClassVar[str] = "hermes"
    openers: ClassVar[tuple[str, ...]] = (_OPEN,)
    start_openers: ClassVar[tuple[str, ...]] = ()
    marks: ClassVar[tuple[str, ...]] = (_OPEN, _CLOSE)

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return _OPEN in template and "<function=" not in template and "<arg_key>" not in template

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """One call after its opener."""
        yield from read_call_object(cursor)
        yield from cursor.space()
        yield from cursor.literal(_CLOSE)

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """A Lark expression for its calls."""
        objects = writer.one_of(call_object(writer, tool) for tool in tools)
        line = writer.text("\n")
        call = writer.rule(f"{writer.mark(_OPEN)} {line} {objects} {line} {writer.mark(_CLOSE)}")
        return f"{call} ({line} {call})*" if several else call

    def call_id(self) -> str:
        """A fresh id."""
        return random_id()


def call_object(writer: GrammarWriter, tool: Tool, arguments: str = "arguments") -> str:
    """An expression for a call as a JSON object."""
    opening = writer.text(f'{{"name": "{tool.name}", "{arguments}": ')
    return f"{opening} {writer.arguments(tool)} {writer.text('}')}"
