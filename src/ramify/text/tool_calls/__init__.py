"""Tool calls: how model families write them, read while they are written, and grammars that hold a model to them."""

from ramify.text.tool_calls.base import Arguments, Begun, Ended, Event, Tool, ToolFormat
from ramify.text.tool_calls.families import detect_tools, tool_format
from ramify.text.tool_calls.parser import ToolCallParser
from ramify.text.tool_calls.validation import check_tools

__all__ = [
    "Arguments",
    "Begun",
    "Ended",
    "Event",
    "Tool",
    "ToolCallParser",
    "ToolFormat",
    "check_tools",
    "detect_tools",
    "tool_format",
]
