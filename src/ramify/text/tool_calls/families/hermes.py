"""Hermes, and the many that follow it: ``<tool_call>{"name": ..., "arguments": ...}</tool_call>``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import Cursor, read_call_object
from ramify.text.tool_calls.grammar import GrammarWriter

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@register("hermes", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Hermes(ToolFormat):
    """A JSON object between ``<tool_call>`` and ``</tool_call>`` for each call (Hermes, Qwen 2.5, Qwen 3)."""

    name: ClassVar[str] = "hermes"
    openers: ClassVar[tuple[str, ...]] = (_OPEN,)
    inner_marks: ClassVar[tuple[str, ...]] = (_CLOSE,)
    between: ClassVar[str | None] = "\n"

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """One call after its opener."""
        yield from read_call_object(cursor)
        yield from cursor.space()
        yield from cursor.literal(_CLOSE)

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        line = writer.text("\n")
        return f"{line} {writer.one_of(map(writer.call_object, tools))} {line} {writer.mark(_CLOSE)}"
