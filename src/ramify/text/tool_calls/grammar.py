"""`GrammarWriter`: helps a family to write the grammar of its calls, in llguidance's variant of Lark.

The grammar allows exactly what the family's parser reads back, with arguments that fit the functions' schemas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ramify.errors import RequestError
from ramify.text.tool_calls.base import Tool

_DEFINITIONS = ("$defs", "definitions")


class GrammarWriter:
    """Rules of one grammar.

    Args:
        token_of: a mark's text -> its one token, or None where it is written in letters.
    """

    def __init__(self, token_of: Callable[[str], int | None] = lambda text: None) -> None:
        self._token_of = token_of
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
        return self.json(closed(tool.parameters), tool.strict)

    def grammar(self, start: str) -> str:
        """The whole grammar, whose answers are what `start` describes."""
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
