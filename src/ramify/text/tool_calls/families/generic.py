"""For chat models whose template knows no tools: a system message tells of them, and answers are as Hermes's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ramify.registry import register
from ramify.text.tool_calls.base import KIND, PAGE, Tool
from ramify.text.tool_calls.families.hermes import Hermes

_INTRODUCTION = (
    "You can call functions. To call one, write\n"
    '<tool_call>\n{"name": "the function", "arguments": {its arguments}}\n</tool_call>\n'
    "and nothing else; the result comes in the next message. These are the functions:"
)


@register("generic", kind=KIND, trade="lossless", page=PAGE)
@dataclass(frozen=True, slots=True)
class Generic(Hermes):
    """Any chat model: functions are described in a system message, calls are written as in Hermes."""

    name: ClassVar[str] = "generic"

    def written_by(self, template: str) -> bool:
        """It is no template's own."""
        return False


def describe_tools(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """A conversation for a template without tools: their description first, earlier calls and results as text."""
    told = [_as_text(message) for message in messages]
    if not tools:
        return told
    lines = [_INTRODUCTION, *(json.dumps(tool.as_openai()["function"], ensure_ascii=False) for tool in tools)]
    if told and told[0]["role"] == "system":
        return [
            {**told[0], "content": "\n\n".join(filter(None, [told[0].get("content"), "\n".join(lines)]))},
            *told[1:],
        ]
    return [{"role": "system", "content": "\n".join(lines)}, *told]


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    if not message.get("tool_calls"):
        return dict(message)
    calls = [
        f'<tool_call>\n{{"name": {json.dumps(call["function"]["name"])}, '
        f'"arguments": {json.dumps(call["function"]["arguments"], ensure_ascii=False)}}}\n</tool_call>'
        for call in message["tool_calls"]
    ]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, [content, *calls]))}
