"""How each family writes calls, by hand: what its parser has to read."""

from __future__ import annotations

import json
from typing import Any

from ramify.text.tool_calls import Tool

BAR = "\uff5c"
TOOLS = (
    Tool(
        "get_weather",
        "Weather of a place.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "where": {"type": "object"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    ),
    Tool("add-2", "", {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "boolean"}}}),
    Tool("now"),
)
Calls = list[tuple[str, dict[str, Any]]]
CALLS: Calls = [
    ("get_weather", {"city": "Zürich \"</tool_call>\" 雪😀\n'x'", "days": 3, "where": {"a": [{}, {"b": "}]"}]}}),
    ("add-2", {"a": -1.5, "b": True}),
    ("now", {}),
    ("get_weather", {"city": "[TOOL_CALLS] <tool_call>", "tags": ["<function=", "]"]}),
]


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _hermes(calls: Calls) -> str:
    return "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {dumps(given)}}}\n</tool_call>' for name, given in calls
    )


def _objects(calls: Calls, name_key: str = "name", arguments: str = "arguments") -> list[dict[str, Any]]:
    return [{name_key: name, arguments: given} for name, given in calls]


def _deepseek_v3(calls: Calls) -> str:
    each = (
        f"<{BAR}tool▁call▁begin{BAR}>function<{BAR}tool▁sep{BAR}>{name}\n```json\n{dumps(given)}\n```"
        f"<{BAR}tool▁call▁end{BAR}>"
        for name, given in calls
    )
    return f"<{BAR}tool▁calls▁begin{BAR}>" + "\n".join(each) + f"<{BAR}tool▁calls▁end{BAR}>"


def _deepseek_v31(calls: Calls) -> str:
    each = (
        f"<{BAR}tool▁call▁begin{BAR}>{name}<{BAR}tool▁sep{BAR}>{dumps(given)}<{BAR}tool▁call▁end{BAR}>"
        for name, given in calls
    )
    return f"<{BAR}tool▁calls▁begin{BAR}>" + "".join(each) + f"<{BAR}tool▁calls▁end{BAR}>"


def _kimi(calls: Calls) -> str:
    each = (
        f"<|tool_call_begin|>functions.{name}:{place}<|tool_call_argument_begin|>{dumps(given)}<|tool_call_end|>"
        for place, (name, given) in enumerate(calls)
    )
    return "<|tool_calls_section_begin|>" + "".join(each) + "<|tool_calls_section_end|>"


def _raw(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value)


def _qwen_coder(calls: Calls) -> str:
    def one(name: str, given: dict[str, Any]) -> str:
        lines = "".join(f"<parameter={key}>\n{_raw(value)}\n</parameter>\n" for key, value in given.items())
        return f"<tool_call>\n<function={name}>\n{lines}</function>\n</tool_call>"

    return "\n".join(one(*call) for call in calls)


def _glm(calls: Calls) -> str:
    def one(name: str, given: dict[str, Any]) -> str:
        lines = "".join(
            f"<arg_key>{key}</arg_key>\n<arg_value>{_raw(value)}</arg_value>\n" for key, value in given.items()
        )
        return f"<tool_call>{name}\n{lines}</tool_call>"

    return "\n".join(one(*call) for call in calls)


def _minimax(calls: Calls) -> str:
    def one(name: str, given: dict[str, Any]) -> str:
        lines = "".join(f'<parameter name="{key}">{_raw(value)}</parameter>\n' for key, value in given.items())
        return f'<invoke name="{name}">\n{lines}</invoke>\n'

    return "<minimax:tool_call>\n" + "".join(one(*call) for call in calls) + "</minimax:tool_call>"


def _python(calls: Calls) -> list[str]:
    return [f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in calls]


WRITTEN = {
    "hermes": _hermes,
    "generic": _hermes,
    "llama3_json": lambda calls: "; ".join(map(dumps, _objects(calls, arguments="parameters"))),
    "mistral": lambda calls: "[TOOL_CALLS]" + dumps(_objects(calls)),
    "mistral_v11": lambda calls: "".join(f"[TOOL_CALLS]{name}[ARGS]{dumps(given)}" for name, given in calls),
    "deepseek_v3": _deepseek_v3,
    "deepseek_v31": _deepseek_v31,
    "kimi_k2": _kimi,
    "granite": lambda calls: "<|tool_call|>" + dumps(_objects(calls)),
    "phi4": lambda calls: "functools" + dumps(_objects(calls)),
    "jamba": lambda calls: f"<tool_calls>{dumps(_objects(calls))}</tool_calls>",
    "cohere": lambda calls: f"<|START_ACTION|>{dumps(_objects(calls, 'tool_name', 'parameters'))}<|END_ACTION|>",
    "qwen3_coder": _qwen_coder,
    "glm45": _glm,
    "minimax_m2": _minimax,
    "pythonic": lambda calls: f"[{', '.join(_python(calls))}]",
    "olmo3": lambda calls: "<function_calls>\n" + "\n".join(_python(calls)) + "\n</function_calls>",
}
STARTS_ANSWER = {"llama3_json", "pythonic"}
"""Families whose calls are the whole answer."""
