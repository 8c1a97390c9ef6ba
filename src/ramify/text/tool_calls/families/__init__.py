"""The families, one file each. Order is the order of detection: most particular first."""

from __future__ import annotations

from ramify import registry
from ramify.text.tool_calls.base import KIND, ToolFormat
from ramify.text.tool_calls.families.generic import Generic, describe_tools
from ramify.text.tool_calls.families.hermes import Hermes

_DETECTED: tuple[type[ToolFormat], ...] = (Hermes,)

__all__ = ["Generic", "describe_tools", "detect_tools", "tool_format"]


def tool_format(name: str) -> ToolFormat:
    """The family of a name.

    Raises:
        ConfigError: there is none; names the nearest ones.
    """
    made: ToolFormat = registry.build(KIND, name)
    return made


def detect_tools(template: str) -> ToolFormat | None:
    """The family that a chat template writes calls as; None if it is none that is known."""
    return next((family() for family in _DETECTED if family().written_by(template)), None)
