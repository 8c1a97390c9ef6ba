"""`reasoning_effort`: how hard a model may think, in the words of the model's template or as a number of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ramify.errors import RequestError

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
DEFAULT_BUDGETS: Mapping[str, int | None] = MappingProxyType(
    {"none": 0, "minimal": 128, "low": 512, "medium": 2048, "high": 8192, "xhigh": None}
)
"""Tokens of thought where a template knows no efforts, each four times the one before; None is no limit."""
_SWITCHES = ("enable_thinking", "thinking")
_TAKES_EFFORT = "reasoning_effort"


@dataclass(frozen=True, slots=True)
class Effort:
    """What an effort comes to for one model.

    Attributes:
        arguments: for the chat template.
        budget: tokens of thought at most; None is no limit.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    budget: int | None = None


def effort_budget(
    effort: str | None,
    variables: frozenset[str],
    thinks: bool,
    budgets: Mapping[str, int | None] = DEFAULT_BUDGETS,
) -> Effort:
    """An effort for a model.

    A template with ``reasoning_effort`` is told the effort itself. One with ``enable_thinking`` (or ``thinking``) is
    switched, and so is thinking altogether by "none"; what lies between is a limit on tokens.

    Args:
        effort: one of `EFFORTS`; None leaves the model to itself.
        variables: the names that the chat template asks for.
        thinks: the model's answers have thoughts.
        budgets: tokens for each effort.

    Raises:
        RequestError: there is no such effort, or the model does not think.
    """
    if effort is None:
        return Effort()
    if effort not in EFFORTS:
        raise RequestError(f"reasoning_effort={effort!r} does not work: choose from {', '.join(EFFORTS)}")
    if _TAKES_EFFORT in variables:
        switch = {name: effort != "none" for name in _SWITCHES if name in variables}
        return Effort({_TAKES_EFFORT: effort, **switch}, 0 if effort == "none" and thinks else None)
    if not thinks:
        if effort == "none":
            return Effort()
        raise RequestError(
            f"reasoning_effort={effort!r} does not work: this model does not reason before it answers; leave it out"
        )
    switches = {name: effort != "none" for name in _SWITCHES if name in variables}
    if effort == "none" and switches:
        return Effort(switches)
    return Effort(switches, budgets[effort])
