"""Tools of a request are checked before any work."""

from __future__ import annotations

from typing import Any

import pytest

from ramify.errors import RequestError
from ramify.text.tool_calls import check_tools
from ramify.text.tool_calls.validation import MAX_SCHEMA_CHARS, MAX_SCHEMA_DEPTH, MAX_TOOLS


def tool(name: Any = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def test_a_tool_without_parameters_takes_none() -> None:
    [made] = check_tools([tool("a-b_9", description=None, strict=True)])
    assert (made.name, made.description, made.strict) == ("a-b_9", "", True)
    assert made.parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([tool()] * 2, "two tools"),
        ([tool(f"f{number}") for number in range(MAX_TOOLS + 1)], "the most"),
        ([{"type": "web_search"}], "web_search"),
        ([{"type": "function"}], "no function"),
        ([tool("a b")], "no name"),
        ([tool("x" * 65)], "no name"),
        ([tool("f\n")], "no name"),
        ([tool(3)], "no name"),
        ([tool(parameters=[])], "type object"),
        ([tool(parameters={"type": "array"})], "type object"),
        ([tool(parameters={"properties": []})], "properties"),
        ([tool(parameters=nested(MAX_SCHEMA_DEPTH))], "deep"),
        ([tool(parameters=nested(5000))], "deep"),
        ([tool(parameters={"description": "x" * MAX_SCHEMA_CHARS})], "characters"),
        ([tool(f"f{number}", description="x" * 60_000) for number in range(20)], "together"),
    ],
)
def test_what_does_not_work_is_refused(tools: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_tools(tools)
