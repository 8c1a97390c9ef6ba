"""Calls as Python writes them: ``[name(key=value, ...), ...]`` (Llama 3.2, Llama 4), or one a line (Olmo 3).

They are read by recursive descent, each character once, to a bounded depth: no expression is evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Malformed, Reading, Tool, ToolFormat
from ramify.text.tool_calls.cursor import Cursor
from ramify.text.tool_calls.grammar import GrammarWriter, properties

MAX_NESTING = 32
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_START, _END = "<|python_start|>", "<|python_end|>"
_LINES, _LINES_END = "<function_calls>", "</function_calls>"
_LONGEST_NUMBER = 64


@register("pythonic", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Pythonic(ToolFormat):
    """A Python list of calls and nothing else, sometimes behind ``<|python_start|>`` (Llama 3.2, Llama 4)."""

    name: ClassVar[str] = "pythonic"
    lists_arguments: ClassVar[bool] = True
    openers: ClassVar[tuple[str, ...]] = (_START,)
    start_openers: ClassVar[tuple[str, ...]] = ("[",)
    inner_marks: ClassVar[tuple[str, ...]] = (_END,)

    def written_by(self, template: str) -> bool:
        """Whether a chat template is of this family."""
        return _START in template or "[func_name1(" in template

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """All calls; they count when the list is whole."""
        if opener == _START:
            yield from cursor.space()
            yield from cursor.literal("[")
        calls = []
        while True:
            calls.append((yield from _call(cursor)))
            yield from cursor.space()
            if (yield from cursor.one_of(",]")) == "]":
                break
        for name, arguments in calls:
            cursor.call(name, arguments)
        if opener == _START:
            yield from cursor.space()
            yield from cursor.literal(_END)

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opening bracket."""
        call = writer.rule(writer.one_of(_expression(writer, tool) for tool in tools))
        return f"{writer.joined(call, ', ', several)} {writer.text(']')}"


@register("olmo3", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Olmo(ToolFormat):
    """Python calls, one a line, between ``<function_calls>`` and ``</function_calls>`` (Olmo 3)."""

    name: ClassVar[str] = "olmo3"
    lists_arguments: ClassVar[bool] = True
    openers: ClassVar[tuple[str, ...]] = (_LINES,)
    inner_marks: ClassVar[tuple[str, ...]] = (_LINES_END,)

    def read(self, cursor: Cursor, opener: str) -> Reading[None]:
        """All calls."""
        while (yield from cursor.space()) != "<":
            name, arguments = yield from _call(cursor)
            cursor.call(name, arguments)
        yield from cursor.literal(_LINES_END)

    def grammar(self, writer: GrammarWriter, tools: Sequence[Tool], several: bool) -> str:
        """What follows the opener."""
        call = writer.rule(writer.one_of(_expression(writer, tool) for tool in tools))
        return f"{writer.joined(call, chr(10), several)} {writer.mark(_LINES_END)}"


def _call(cursor: Cursor) -> Reading[tuple[str, dict[str, Any]]]:
    """``name(key=value, ...)``"""
    yield from cursor.space()
    cursor.closing = False
    name = yield from cursor.word(lambda char: char.isalnum() or char in "_-.")
    if name not in cursor.tools:
        raise Malformed(f"no function is called {name!r}")
    yield from cursor.literal("(")
    arguments: dict[str, Any] = {}
    while (yield from cursor.space()) != ")":
        key = yield from cursor.word(lambda char: char.isalnum() or char == "_")
        yield from cursor.space()
        yield from cursor.literal("=")
        arguments[key] = yield from _value(cursor, MAX_NESTING)
        if (yield from cursor.space()) != ")":
            yield from cursor.literal(",")
    yield from cursor.literal(")")
    return name, arguments


def _value(cursor: Cursor, depth: int) -> Reading[Any]:
    """A literal: text, number, True, False, None, list, tuple or dict of them."""
    first = yield from cursor.space()
    if first in "\"'":
        return (yield from _text(cursor))
    if first in "[(":
        return (yield from _items(cursor, "]" if first == "[" else ")", depth - 1))
    if first == "{":
        return (yield from _entries(cursor, depth - 1))
    word = yield from cursor.word(lambda char: char.isalnum() or char in "+-._")
    return _WORDS[word] if word in _WORDS else _number(word)


def _items(cursor: Cursor, closer: str, depth: int) -> Reading[list[Any]]:
    _require_depth(depth)
    yield from cursor.one_of("[(")
    values = []
    while (yield from cursor.space()) != closer:
        values.append((yield from _value(cursor, depth)))
        if (yield from cursor.space()) != closer:
            yield from cursor.literal(",")
    yield from cursor.literal(closer)
    return values


def _entries(cursor: Cursor, depth: int) -> Reading[dict[str, Any]]:
    _require_depth(depth)
    yield from cursor.literal("{")
    entries: dict[str, Any] = {}
    while (yield from cursor.space()) != "}":
        key = yield from _text(cursor)
        yield from cursor.space()
        yield from cursor.literal(":")
        entries[key] = yield from _value(cursor, depth)
        if (yield from cursor.space()) != "}":
            yield from cursor.literal(",")
    yield from cursor.literal("}")
    return entries


def _text(cursor: Cursor) -> Reading[str]:
    """A string in either kind of quotes; line ends inside it stand for themselves."""
    quote = yield from cursor.one_of("\"'")
    parts = [quote]
    escaped = False
    while True:
        char = yield from cursor.take()
        parts.append(char if char >= " " else f"\\x{ord(char):02x}")
        if char == quote and not escaped:
            break
        escaped = char == "\\" and not escaped
    try:
        return str(ast.literal_eval("".join(parts)))
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise Malformed("this is no text") from error


def _number(word: str) -> int | float:
    """Raises `Malformed` for what is no finite number."""
    try:
        if len(word) > _LONGEST_NUMBER or "_" in word:
            raise ValueError
        return int(word) if word.lstrip("+-").isdigit() else _finite(float(word))
    except ValueError as error:
        raise Malformed(f"{word[:_LONGEST_NUMBER]!r} is no value") from error


def _finite(value: float) -> float:
    if value - value != 0:
        raise ValueError
    return value


def _require_depth(depth: int) -> None:
    if depth < 0:
        raise Malformed(f"more than {MAX_NESTING} brackets are nested")


def _expression(writer: GrammarWriter, tool: Tool) -> str:
    """An expression for a call of one function: its arguments in the order of the schema, as JSON."""
    needed = [entry for entry in properties(tool) if entry[2]]
    optional = [entry for entry in properties(tool) if not entry[2]]
    parts = []
    for place, (key, schema, _) in enumerate(needed):
        comma = ", " if place else ""
        parts.append(f"{writer.text(f'{comma}{key}=')} {writer.json(schema, tool.strict)}")
    for key, schema, _ in optional:
        parts.append(f"({writer.text(f', {key}=')} {writer.json(schema, tool.strict)})?")
    if not needed and optional:
        parts = [_any_of_optional(writer, tool, optional)]
    return " ".join([writer.text(f"{tool.name}("), *parts, writer.text(")")])


def _any_of_optional(writer: GrammarWriter, tool: Tool, optional: Sequence[tuple[str, Any, bool]]) -> str:
    """Some of the arguments or none, with commas between them alone."""
    entries = [f"{writer.text(f'{key}=')} {writer.json(schema, tool.strict)}" for key, schema, _ in optional]
    rules = [writer.rule(entry) for entry in entries]
    choices = []
    for place, rule in enumerate(rules):
        later = " ".join(f"({writer.text(', ')} {other})?" for other in rules[place + 1 :])
        choices.append(f"{rule} {later}".strip())
    return f"{writer.one_of(choices)}?"
