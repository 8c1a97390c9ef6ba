"""Families that write calls as one JSON array between marks: Granite, Phi 4, Jamba, Command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import Cursor, read_call_list
from ramify.text.tool_calls.grammar import GrammarWriter


@dataclass(frozen=True, slots=True)
class _JsonList(ToolFormat):
    """
    Attributes:
        closer: stands behind the array; "" for none.
        keys: what the entries with the name and the arguments are called.
    """

    closer: ClassVar[str] = ""
    keys: ClassVar[tuple[str, str]] = ("name", "arguments")

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that surround calls."""
        return (*self.openers, *((self.closer,) if self.closer else ()))

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """All calls."""
        name, arguments = self.keys
        yield from read_call_list(cursor, (name,), (arguments, "parameters"), opened=opener.endswith("["))
        if self.closer:
            yield from cursor.space()
            yield from cursor.literal(self.closer)

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        bracket = [] if self.usual_opener.endswith("[") else [writer.text("[")]
        closer = [writer.mark(self.closer)] if self.closer else []
        return " ".join([*bracket, writer.call_list(tools, several, *self.keys), *closer])


@register("granite", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Granite(_JsonList):
    """A JSON array behind ``<|tool_call|>`` (Granite 3)."""

    name: ClassVar[str] = "granite"
    openers: ClassVar[tuple[str, ...]] = ("<|tool_call|>",)


@register("phi4", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Phi(_JsonList):
    """A JSON array behind ``functools`` (Phi 4 mini)."""

    name: ClassVar[str] = "phi4"
    openers: ClassVar[tuple[str, ...]] = ("functools[",)

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family: it shows the tools, not how they are called."""
        return "functools" in template or ("<|tool|>" in template and "<|/tool|>" in template)


@register("jamba", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Jamba(_JsonList):
    """A JSON array between ``<tool_calls>`` and ``</tool_calls>`` (Jamba, Hunyuan)."""

    name: ClassVar[str] = "jamba"
    openers: ClassVar[tuple[str, ...]] = ("<tool_calls>",)
    closer: ClassVar[str] = "</tool_calls>"


@register("cohere", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Cohere(_JsonList):
    """A JSON array between ``<|START_ACTION|>`` and ``<|END_ACTION|>`` (Command R7B, Command A)."""

    name: ClassVar[str] = "cohere"
    openers: ClassVar[tuple[str, ...]] = ("<|START_ACTION|>",)
    closer: ClassVar[str] = "<|END_ACTION|>"
    keys: ClassVar[tuple[str, str]] = ("tool_name", "parameters")
