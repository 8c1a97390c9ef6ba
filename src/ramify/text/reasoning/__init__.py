"""What a model thinks before it answers: where thoughts stand in its text, and how long it may think."""

from ramify.text.reasoning.effort import EFFORTS, Effort, effort_budget
from ramify.text.reasoning.formats import ReasoningFormat, detect_reasoning, reasoning_format
from ramify.text.reasoning.parser import ReasoningParser, count_reasoning_tokens

__all__ = [
    "EFFORTS",
    "Effort",
    "ReasoningFormat",
    "ReasoningParser",
    "count_reasoning_tokens",
    "detect_reasoning",
    "effort_budget",
    "reasoning_format",
]
