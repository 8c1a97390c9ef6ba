"""Budget forcing: a limit and a minimum for thinking, held on the ids (s1, Muennighoff et al., arXiv:2501.19393)."""

from __future__ import annotations

from dataclasses import dataclass

from ramify.backends.base import Capability
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.forcing import Forcing
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import strategy
from ramify.strategies.spec_text import SpecText


@strategy(
    "budget-forcing", kind="approximate", paper="arXiv:2501.19393", needs=(Capability.CONTINUE, Capability.TOKENS)
)
@dataclass(frozen=True)
class BudgetForcing(Forcing):
    """One answer whose thinking takes at most, and at least, so many tokens.

    Thinking is drawn up to its end. If it ends too early, the end is taken away, `wait` is put in its place, and it
    goes on. If it reaches `max_think`, its end and `answer_prefix` are forced behind it. The answer has its own cap.

    Attributes:
        start_think, end_think, answer_prefix, answer_tokens: see `Forcing`.
        max_think: tokens of thinking at most, what is put in included; fewer where the budget leaves fewer.
        min_think: an end before this many tokens is taken away.
        ignore: so many ends are taken away in any case.
        wait: put in the place of an end.
    """

    max_think: int = 4096
    min_think: int = 0
    ignore: int = 0
    wait: SpecText = SpecText.of("Wait")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("max_think")
        if not 0 <= self.min_think <= self.max_think:
            raise ConfigError(f"min_think={self.min_think} does not work: 0 to max_think={self.max_think}")
        if self.ignore < 0 or not self.wait:
            raise ConfigError(
                f"ignore={self.ignore}, wait={str.__str__(self.wait)!r} do not work: 0 or more, and a text"
            )

    async def run(self, problem: Problem, context: Context) -> Result:
        """Think within the limits, then answer."""
        node, ended, ignored = await context.root(), False, 0
        while node.open and (limit := self.thinking_left(context, node, self.max_think)) > 0:
            node = await self.think(context, node, limit)
            context.report([node], 0)
            ended = self.has_ended(context, node)
            if ended and (ignored < self.ignore or node.num_tokens < self.min_think):
                node, ended, ignored = await self.unended(context, node, self.wait), False, ignored + 1
            elif ended:
                break
        await self.warn_without_marks(context, node)
        if not ended:
            node = await self.cut(context, node)
        if node.open:
            node = await self.answer(context, node)
        return context.result([node], 0)
