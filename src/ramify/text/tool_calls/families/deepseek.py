"""DeepSeek V3, R1 and V3.1: calls between special tokens, the arguments in a fence or bare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import MAX_NAME, Cursor, read_named_call
from ramify.text.tool_calls.grammar import GrammarWriter

_BAR = "\uff5c"  # the full-width one
_OPEN, _CLOSE = f"<{_BAR}tool▁calls▁begin{_BAR}>", f"<{_BAR}tool▁calls▁end{_BAR}>"
_CALL, _CALL_END = f"<{_BAR}tool▁call▁begin{_BAR}>", f"<{_BAR}tool▁call▁end{_BAR}>"
_SEPARATOR = f"<{_BAR}tool▁sep{_BAR}>"
_FENCE, _FENCE_END = "```json\n", "\n```"


@dataclass(frozen=True, slots=True)
class _EitherForm(ToolFormat):
    openers: ClassVar[tuple[str, ...]] = (_OPEN,)
    inner_marks: ClassVar[tuple[str, ...]] = (_CLOSE, _CALL, _CALL_END, _SEPARATOR)

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """All calls."""
        yield from cursor.space()
        found = yield from cursor.either((_CALL,))
        while found == _CALL:
            cursor.closing = False
            head = (yield from cursor.until(_SEPARATOR, MAX_NAME)).strip()
            fenced = head == "function"
            if fenced:
                head = (yield from cursor.until("\n", MAX_NAME)).strip()
                yield from cursor.space()
                yield from cursor.literal(_FENCE)
            yield from read_named_call(cursor, head)
            yield from cursor.space()
            if fenced:
                yield from cursor.literal(_FENCE_END.strip())
                yield from cursor.space()
            yield from cursor.literal(_CALL_END)
            yield from cursor.space()
            found = yield from cursor.either((_CALL, _CLOSE))

    def _calls(self, writer: GrammarWriter, heads: list[str], between: str, several: bool) -> str:
        call = writer.rule(f"{writer.mark(_CALL)} {writer.one_of(heads)} {writer.mark(_CALL_END)}")
        return f"{writer.joined(call, between, several)} {writer.mark(_CLOSE)}"


@register("deepseek_v3", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class DeepSeekV3(_EitherForm):
    """The type, the name, and JSON in a fence (DeepSeek V3, R1)."""

    name: ClassVar[str] = "deepseek_v3"

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return _OPEN in template and "```json" in template

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        head = f"{writer.text('function')} {writer.mark(_SEPARATOR)}"
        names = (writer.text(f"{tool.name}\n{_FENCE}") for tool in tools)
        heads = [
            f"{head} {name} {writer.arguments(tool)} {writer.text(_FENCE_END)}"
            for name, tool in zip(names, tools, strict=True)
        ]
        return self._calls(writer, heads, "\n", several)


@register("deepseek_v31", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class DeepSeekV31(_EitherForm):
    """The name and bare JSON (DeepSeek V3.1)."""

    name: ClassVar[str] = "deepseek_v31"

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        separator = writer.mark(_SEPARATOR)
        heads = [f"{writer.text(tool.name)} {separator} {writer.arguments(tool)}" for tool in tools]
        return self._calls(writer, heads, "", several)
