"""Thinking mode: how much effort a model spends on thinking, from none to high, by limits on its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ramify.backends.base import Capability
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.forcing import Forcing
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import strategy
from ramify.strategies.spec_text import SpecText


@strategy("thinking-mode", kind="approximate", paper="arXiv:2505.09388", needs=(Capability.CONTINUE, Capability.TOKENS))
@dataclass(frozen=True)
class ThinkingMode(Forcing):
    """One answer with a chosen effort: no thinking at all, or at most so many tokens of it.

    Attributes:
        start_think, end_think, answer_prefix, answer_tokens: see `Forcing`; the prefix here only ends the line.
        effort: "none" opens and closes thinking at once (closes it, where the prompt has opened it); the others let
            the model think up to their limit and force the answer there.
        low, medium, high: the limits, in tokens.
        empty: stands between the two marks where there is no thinking.
    """

    answer_prefix: SpecText = SpecText.of("\n\n")
    effort: Literal["none", "low", "medium", "high"] = "medium"
    low: int = 1024
    medium: int = 4096
    high: int = 16384
    empty: SpecText = SpecText.of("\n\n")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.low <= self.medium <= self.high:
            raise ConfigError(f"low={self.low}, medium={self.medium}, high={self.high} do not work: give them in order")

    @property
    def max_think(self) -> int:
        """The limit of the chosen effort, in tokens."""
        return {"none": 0, "low": self.low, "medium": self.medium, "high": self.high}[self.effort]

    async def run(self, problem: Problem, context: Context) -> Result:
        """Think up to the limit, if at all, then answer."""
        node, ended = await context.root(), False
        limit = self.thinking_left(context, node, self.max_think)
        if limit > 0:
            node = await self.think(context, node, limit)
            context.report([node], 0)
            ended = self.has_ended(context, node)
            await self.warn_without_marks(context, node)
        if node.parent is None:
            opening = "" if await self.opened_by_prompt(context) else str.__str__(self.start_think)
            node = await context.append(node, opening + str.__str__(self.empty) + self.forced)
        elif not ended:
            node = await self.cut(context, node)
        if node.open:
            node = await self.answer(context, node)
        return context.result([node], 0)
