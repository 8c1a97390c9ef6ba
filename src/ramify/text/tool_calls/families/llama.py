"""Llama 3: the whole answer is ``{"name": ..., "parameters": ...}``, sometimes behind ``<|python_tag|>``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import Cursor, read_call_object
from ramify.text.tool_calls.grammar import GrammarWriter


@register("llama3_json", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class LlamaJson(ToolFormat):
    """JSON objects and nothing else, with ``;`` between several (Llama 3.1, 3.2, 3.3)."""

    name: ClassVar[str] = "llama3_json"
    openers: ClassVar[tuple[str, ...]] = ("<|python_tag|>",)
    start_openers: ClassVar[tuple[str, ...]] = ("{",)

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return "<|python_tag|>" in template or ("<|start_header_id|>" in template and '"parameters":' in template)

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """All calls."""
        yield from read_call_object(cursor, opened=opener == "{")
        while (yield from cursor.space()) == ";":
            yield from cursor.literal(";")
            yield from read_call_object(cursor)

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opening brace."""
        first = writer.one_of(writer.call_object(tool, arguments="parameters", opened=True) for tool in tools)
        if not several:
            return first
        more = writer.one_of(writer.call_object(tool, arguments="parameters") for tool in tools)
        return f"{first} ({writer.text('; ')} {more})*"
