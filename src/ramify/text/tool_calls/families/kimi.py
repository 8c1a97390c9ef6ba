"""Kimi K2: a section of calls, each named ``functions.NAME:NUMBER``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import MAX_NAME, Cursor, read_named_call
from ramify.text.tool_calls.grammar import GrammarWriter

_OPEN, _CLOSE = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_CALL, _CALL_END = "<|tool_call_begin|>", "<|tool_call_end|>"
_ARGUMENTS = "<|tool_call_argument_begin|>"
_PREFIX = "functions."


@register("kimi_k2", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Kimi(ToolFormat):
    """A section of calls between special tokens, each with an id that names the function (Kimi K2)."""

    name: ClassVar[str] = "kimi_k2"
    openers: ClassVar[tuple[str, ...]] = (_OPEN,)
    inner_marks: ClassVar[tuple[str, ...]] = (_CLOSE, _CALL, _CALL_END, _ARGUMENTS)

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """All calls."""
        yield from cursor.space()
        found = yield from cursor.either((_CALL,))
        while found == _CALL:
            cursor.closing = False
            head = (yield from cursor.until(_ARGUMENTS, MAX_NAME)).strip()
            yield from read_named_call(cursor, head.removeprefix(_PREFIX).rpartition(":")[0])
            yield from cursor.space()
            yield from cursor.literal(_CALL_END)
            yield from cursor.space()
            found = yield from cursor.either((_CALL, _CLOSE))

    def call_id(self, name: str, index: int) -> str:
        """As the model itself numbers its calls; the template gives it back."""
        return f"{_PREFIX}{name}:{index}"

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        marked = writer.mark(_ARGUMENTS)
        calls = writer.one_of(
            f"{writer.text(f'{_PREFIX}{tool.name}:')} /[0-9]{{1,3}}/ {marked} {writer.arguments(tool)}"
            for tool in tools
        )
        call = writer.rule(f"{writer.mark(_CALL)} {calls} {writer.mark(_CALL_END)}")
        return f"{writer.joined(call, '', several)} {writer.mark(_CLOSE)}"
