"""Families that write arguments one by one between tags: Qwen 3 Coder, GLM 4.5, MiniMax M2.

A text argument stands as it is, everything else as JSON; the function's schema says which is which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Malformed, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import MAX_NAME, Cursor
from ramify.text.tool_calls.grammar import GrammarWriter, properties, raw_value

_WORDS = {"true": True, "false": False, "null": None, "none": None}


@register("qwen3_coder", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class QwenCoder(ToolFormat):
    """``<function=NAME>`` with a ``<parameter=NAME>`` for each argument (Qwen 3 Coder, Nemotron 3)."""

    name: ClassVar[str] = "qwen3_coder"
    lists_arguments: ClassVar[bool] = True
    openers: ClassVar[tuple[str, ...]] = ("<tool_call>", "<function=")
    inner_marks: ClassVar[tuple[str, ...]] = ("</tool_call>",)
    between: ClassVar[str | None] = "\n"

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return "<function=" in template and "<parameter=" in template

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """One call."""
        wrapped = opener == "<tool_call>"
        if wrapped:
            yield from cursor.space()
            yield from cursor.literal("<function=")
        name = (yield from cursor.until(">", MAX_NAME)).strip()
        arguments: dict[str, Any] = {}
        yield from cursor.space()
        while (yield from cursor.either(("<parameter=", "</function>"))) == "<parameter=":
            key = (yield from cursor.until(">", MAX_NAME)).strip()
            value = yield from cursor.until("</parameter>")
            arguments[key] = typed(cursor, name, key, value.removeprefix("\n").removesuffix("\n"))
            yield from cursor.space()
        cursor.call(name, arguments)
        if wrapped:
            yield from cursor.space()
            yield from cursor.literal("</tool_call>")

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        calls = (
            writer.rule(
                f"{writer.text(f'{chr(10)}<function={tool.name}>{chr(10)}')} "
                + _arguments(writer, tool, "<parameter={}>\n", "\n</parameter>\n")
                + f" {writer.text('</function>' + chr(10))}"
            )
            for tool in tools
        )
        return f"{writer.one_of(calls)} {writer.mark('</tool_call>')}"


@register("glm45", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Glm(ToolFormat):
    """``<arg_key>`` and ``<arg_value>`` for each argument inside ``<tool_call>`` (GLM 4.5 and later)."""

    name: ClassVar[str] = "glm45"
    lists_arguments: ClassVar[bool] = True
    openers: ClassVar[tuple[str, ...]] = ("<tool_call>",)
    inner_marks: ClassVar[tuple[str, ...]] = (
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
    )
    between: ClassVar[str | None] = "\n"

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return "<arg_key>" in template

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """One call."""
        yield from cursor.space()
        name = yield from cursor.word(lambda char: char != "<")
        name = name.strip()
        arguments: dict[str, Any] = {}
        while (yield from cursor.either(("<arg_key>", "</tool_call>"))) == "<arg_key>":
            key = (yield from cursor.until("</arg_key>", MAX_NAME)).strip()
            yield from cursor.space()
            yield from cursor.literal("<arg_value>")
            value = yield from cursor.until("</arg_value>")
            arguments[key] = typed(cursor, name, key, value)
            yield from cursor.space()
        cursor.call(name, arguments)

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        calls = (
            writer.rule(
                f"{writer.text(tool.name + chr(10))} "
                + _arguments(writer, tool, "<arg_key>{}</arg_key>\n<arg_value>", "</arg_value>\n")
            )
            for tool in tools
        )
        return f"{writer.one_of(calls)} {writer.mark('</tool_call>')}"


@register("minimax_m2", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class MiniMax(ToolFormat):
    """``<invoke name="...">`` with a ``<parameter name="...">`` for each argument (MiniMax M2)."""

    name: ClassVar[str] = "minimax_m2"
    lists_arguments: ClassVar[bool] = True
    openers: ClassVar[tuple[str, ...]] = ("<minimax:tool_call>",)
    inner_marks: ClassVar[tuple[str, ...]] = ("</minimax:tool_call>",)

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """All calls."""
        yield from cursor.space()
        found = yield from cursor.either(('<invoke name="',))
        while found == '<invoke name="':
            cursor.closing = False
            name = yield from cursor.until('">', MAX_NAME)
            arguments: dict[str, Any] = {}
            yield from cursor.space()
            while (yield from cursor.either(('<parameter name="', "</invoke>"))) == '<parameter name="':
                key = yield from cursor.until('">', MAX_NAME)
                arguments[key] = typed(cursor, name, key, (yield from cursor.until("</parameter>")))
                yield from cursor.space()
            cursor.call(name, arguments)
            yield from cursor.space()
            found = yield from cursor.either(('<invoke name="', "</minimax:tool_call>"))

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        calls = (
            f"{writer.text(f'<invoke name={chr(34)}{tool.name}{chr(34)}>{chr(10)}')} "
            + _arguments(writer, tool, '<parameter name="{}">', "</parameter>\n")
            + f" {writer.text('</invoke>' + chr(10))}"
            for tool in tools
        )
        call = writer.rule(writer.one_of(calls))
        return f"{writer.text(chr(10))} {writer.joined(call, '', several)} {writer.mark('</minimax:tool_call>')}"


def _arguments(writer: GrammarWriter, tool: Tool, before: str, after: str) -> str:
    """An expression for the arguments in the order of the schema, those that need not be there left open."""
    parts = []
    for key, schema, required in properties(tool):
        part = writer.rule(f"{writer.text(before.format(key))} {raw_value(writer, tool, schema, after)}")
        parts.append(part if required else f"{part}?")
    return " ".join(parts)


def typed(cursor: Cursor, name: str, key: str, text: str) -> Any:
    """An argument's text as what the function's schema asks for; as it stands where it reads as nothing else."""
    tool = cursor.tools.get(name)
    if tool is None:
        raise Malformed(f"no function is called {name!r}")
    known = tool.parameters.get("properties", {})
    wanted = _types(known.get(key) if isinstance(known, Mapping) else None)
    if wanted == {"string"}:
        return text
    stripped = text.strip()
    if stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    try:
        value = json.loads(stripped)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str) and "string" in wanted else value


def _types(schema: Any) -> set[str]:
    """The types that a schema names; empty where it names none."""
    if not isinstance(schema, Mapping):
        return set()
    given = schema.get("type")
    found = {given} if isinstance(given, str) else set(given) if isinstance(given, list) else set()
    for key in ("anyOf", "oneOf"):
        for part in schema.get(key) or ():
            found |= _types(part)
    if not found and isinstance(schema.get("enum"), list) and all(isinstance(value, str) for value in schema["enum"]):
        return {"string"}
    return found
