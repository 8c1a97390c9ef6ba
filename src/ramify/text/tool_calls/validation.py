"""Checks of the tools of a request, before any work."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ramify.errors import RequestError
from ramify.text.tool_calls.base import Tool

MAX_TOOLS = 128
MAX_SCHEMA_CHARS = 65_536
MAX_SCHEMA_DEPTH = 32
MAX_TOTAL_CHARS = 1_048_576
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_tools(given: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """The tools of a request in OpenAI's form (``{"type": "function", "function": {...}}``).

    Raises:
        RequestError: one is no function, a name is no name or is there twice, a schema is none, or it is all too much.
    """
    if len(given) > MAX_TOOLS:
        raise RequestError(f"there are {len(given)} tools; {MAX_TOOLS} are the most")
    tools = tuple(_tool(entry, place) for place, entry in enumerate(given))
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise RequestError(f"two tools are named {tool.name!r}: name each differently")
        seen.add(tool.name)
    total = sum(len(json.dumps(tool.as_openai())) for tool in tools)
    if total > MAX_TOTAL_CHARS:
        raise RequestError(f"the tools take {total:,} characters together; {MAX_TOTAL_CHARS:,} are the most")
    return tools


def _tool(entry: Mapping[str, Any], place: int) -> Tool:
    if entry.get("type", "function") != "function":
        raise RequestError(f"tools.{place} is of type {entry.get('type')!r}; only 'function' works here")
    function = entry.get("function")
    if not isinstance(function, Mapping):
        raise RequestError(f"tools.{place} has no function: give its name and parameters")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(f"tools.{place}: {str(name)[:80]!r} is no name: use 1 to 64 letters, digits, '_' and '-'")
    if parameters is None:
        return Tool(name, str(function.get("description") or ""), strict=bool(function.get("strict")))
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise RequestError(f"tool {name!r}: parameters must be a JSON schema of type object")
    if not _shallow(parameters):
        raise RequestError(f"tool {name!r}: its schema is nested more than {MAX_SCHEMA_DEPTH} deep: use fewer levels")
    size = len(json.dumps(parameters))
    if size > MAX_SCHEMA_CHARS:
        raise RequestError(f"tool {name!r}: its schema has {size:,} characters; {MAX_SCHEMA_CHARS:,} are the most")
    schema = {"type": "object", **parameters}
    if not isinstance(schema.get("properties", {}), Mapping):
        raise RequestError(f"tool {name!r}: properties must be an object of schemas")
    return Tool(name, str(function.get("description") or ""), schema, bool(function.get("strict")))


def _shallow(schema: Any) -> bool:
    """Whether a value is nested at most `MAX_SCHEMA_DEPTH` deep; looks no further."""
    level = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return True
    return False


def _children(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []
