"""`GrammarWriter`: helps a family to write the grammar of its calls, in llguidance's variant of Lark.

The grammar allows exactly what the family's parser reads back, with arguments that fit the functions' schemas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ramify.errors import RequestError
from ramify.text.tool_calls.base import Tool, ToolFormat

_DEFINITIONS = ("$defs", "definitions")


class GrammarWriter:
    """Rules of one grammar.

    Args:
        token_of: a mark's text -> its one token, or None where it is written in letters.
        loose: only strict functions are held to their schemas; the arguments of others are any object.
    """

    def __init__(self, token_of: Callable[[str], int | None] = lambda text: None, loose: bool = False) -> None:
        self._token_of = token_of
        self._loose = loose
        self._rules: list[str] = []

    def text(self, text: str) -> str:
        """An expression for exactly this text."""
        return json.dumps(text, ensure_ascii=False)

    def mark(self, text: str) -> str:
        """An expression for a mark: as the model writes it, one token where it has one."""
        token = self._token_of(text)
        return self.text(text) if token is None else f"<[{token}]>"

    def rule(self, expression: str) -> str:
        """A name for an expression."""
        name = f"rule_{len(self._rules)}"
        self._rules.append(f"{name}: {expression}")
        return name

    def up_to(self, end: str) -> str:
        """An expression for any text without `end`, and `end` behind it."""
        name = f"text_{len(self._rules)}"
        self._rules.append(f"{name}[suffix={self.text(end)}]: /(?s:.*)/")
        return name

    def one_of(self, expressions: Iterable[str]) -> str:
        """An expression for any of these."""
        return "(" + " | ".join(expressions) + ")"

    def json(self, schema: Mapping[str, Any] | bool, strict: bool) -> str:
        """An expression for JSON that fits a schema, spaced as models are trained on.

        Args:
            schema: JSON schema.
            strict: refuse what the grammar cannot hold, rather than leave it open.
        """
        layout = {
            "whitespace_flexible": False,
            "item_separator": ", ",
            "key_separator": ": ",
            "lenient": not strict,
        }
        given = schema if isinstance(schema, Mapping) else ({} if schema else {"not": {}})
        return self.rule("%json " + json.dumps({**given, "x-guidance": layout}))

    def arguments(self, tool: Tool) -> str:
        """An expression for the arguments of a function as a JSON object."""
        if self._loose and not tool.strict:
            return self.json({"type": "object"}, strict=False)
        return self.json(closed(tool.parameters), tool.strict)

    def call_object(self, tool: Tool, name: str = "name", arguments: str = "arguments", opened: bool = False) -> str:
        """An expression for a call as a JSON object, without its opening brace where that is written already."""
        opening = f'"{name}": "{tool.name}", "{arguments}": '
        return f"{self.text(opening if opened else '{' + opening)} {self.arguments(tool)} {self.text('}')}"

    def call_list(self, tools: Sequence[Tool], several: bool, name: str = "name", arguments: str = "arguments") -> str:
        """An expression for calls as a JSON array, without its opening bracket."""
        call = self.rule(self.one_of(self.call_object(tool, name, arguments) for tool in tools))
        return f"{self.joined(call, ', ', several)} {self.text(']')}"

    def joined(self, call: str, between: str, several: bool) -> str:
        """An expression for one of something, or several with a text between them."""
        return f"{call} ({self.text(between)} {call})*" if several and between else f"{call}+" if several else call

    def forced(self, family: ToolFormat, tools: Sequence[Tool], several: bool, other: str | None = None) -> str:
        """The whole grammar of answers that are calls and nothing else, or one other expression."""
        call = self.rule(f"{self.mark(family.usual_opener)} {family.grammar(self, tools, several)}")
        if family.between is not None:
            call = self.joined(call, family.between, several)
        return self._whole(call if other is None else f"{call} | {other}")

    def free(self, family: ToolFormat, tools: Sequence[Tool], several: bool) -> str:
        """The whole grammar of answers that are any text, in which what an opener begins is a call."""
        self._rules.append("ANY_TEXT: /(?s:.*)/")
        self._rules.append("tail: ANY_TEXT")
        opener = family.openers[0]
        lazy = "[lazy]" if self._token_of(opener) is None else ""
        self._rules.append(f"trigger{lazy}: ANY_TEXT {self.mark(opener)}")
        calls = self.rule(f"trigger {family.grammar(self, tools, several)}")
        return self._whole(f"{calls}* tail" if several else f"{calls} | tail")

    def _whole(self, start: str) -> str:
        return "\n".join([f"start: {start}", *self._rules]) + "\n"


def closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A function's schema without arguments that it does not name, unless it asks for them."""
    if "properties" in schema and "additionalProperties" not in schema:
        return {**schema, "additionalProperties": False}
    return schema


def properties(tool: Tool) -> list[tuple[str, Mapping[str, Any], bool]]:
    """(name, schema, required) of each argument, for families that write them one by one.

    Raises:
        RequestError: the schema does not list them.
    """
    schema = tool.parameters
    known = schema.get("properties")
    if not isinstance(known, Mapping) or any(key in schema for key in ("anyOf", "oneOf", "allOf", "$ref")):
        raise RequestError(
            f"tool {tool.name!r}: this model writes arguments one by one, so its schema must list them under properties"
        )
    shared = {key: schema[key] for key in _DEFINITIONS if key in schema}
    required: Sequence[str] = schema.get("required", ())
    listed: list[tuple[str, Mapping[str, Any], bool]] = []
    for name, given in known.items():
        own = given if isinstance(given, Mapping) else ({} if given else {"not": {}})
        listed.append((str(name), {**shared, **own}, name in required))
    return listed


def raw_value(writer: GrammarWriter, tool: Tool, schema: Mapping[str, Any], end: str) -> str:
    """An expression for an argument that is written as it is where it is text, and as JSON otherwise; `end` behind it.

    Raises:
        RequestError: a strict tool asks of a text what cannot be held to in this form.
    """
    if isinstance(schema.get("enum"), list) and all(isinstance(value, str) for value in schema["enum"]):
        return f"{writer.one_of(map(writer.text, schema['enum']))} {writer.text(end)}"
    if schema.get("type", "string") != "string" or any(key in schema for key in ("anyOf", "oneOf", "$ref", "enum")):
        return f"{writer.json(schema, tool.strict)} {writer.text(end)}"
    asked = [key for key in ("pattern", "format", "minLength", "maxLength", "const") if key in schema]
    if asked and tool.strict:
        raise RequestError(
            f"tool {tool.name!r} is strict, and a text of its schema has {asked[0]!r}, to which this model's calls "
            "cannot be held: leave one of the two out"
        )
    return writer.up_to(end)
