"""The families of models, and which of them a chat template belongs to."""

from __future__ import annotations

from ramify import registry
from ramify.text.tool_calls.base import KIND, ToolFormat
from ramify.text.tool_calls.families.deepseek import DeepSeekV3, DeepSeekV31
from ramify.text.tool_calls.families.generic import Generic, describe_tools
from ramify.text.tool_calls.families.hermes import Hermes
from ramify.text.tool_calls.families.json_lists import Cohere, Granite, Jamba, Phi
from ramify.text.tool_calls.families.kimi import Kimi
from ramify.text.tool_calls.families.llama import LlamaJson
from ramify.text.tool_calls.families.mistral import Mistral, MistralNamed
from ramify.text.tool_calls.families.pythonic import Olmo, Pythonic
from ramify.text.tool_calls.families.tagged import Glm, MiniMax, QwenCoder

FAMILIES: tuple[type[ToolFormat], ...] = (
    MistralNamed,
    Mistral,
    DeepSeekV3,
    DeepSeekV31,
    Kimi,
    MiniMax,
    QwenCoder,
    Glm,
    Pythonic,
    Olmo,
    Cohere,
    Granite,
    Jamba,
    Phi,
    Hermes,
    LlamaJson,
)
"""In the order of detection: the more particular first."""

__all__ = ["FAMILIES", "Generic", "describe_tools", "detect_tools", "tool_format"]


def tool_format(name: str) -> ToolFormat:
    """The family of a name.

    Raises:
        ConfigError: there is none; names the nearest ones.
    """
    made: ToolFormat = registry.build(KIND, name)
    return made


def detect_tools(template: str) -> ToolFormat | None:
    """The family that a chat template writes calls as; None if it is none that is known."""
    return next((family() for family in FAMILIES if family().written_by(template)), None)
