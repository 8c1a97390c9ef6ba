"""Nudging: a base model writes, and a small aligned one puts in a word where the base is unsure (arXiv:2410.09300)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.relay import Relay
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter

_TOKEN = StepSplitter(max_tokens=1)
_WORD_ENDS = re.compile(r"\S\s")


@strategy(
    "nudging",
    kind="approximate",
    paper="arXiv:2410.09300",
    needs=(Capability.CONTINUE, Capability.TOKENS, Capability.LOGPROBS, "second model"),
)
@dataclass(frozen=True)
class Nudging(Method):
    """One answer of the main model, in which a small model writes the next words wherever the main one is unsure.

    The main model draws ahead. From the first token on whose distribution gives no token `threshold`, what it drew is
    taken back; the small model writes there, and the main one goes on behind. Both decisions look at what came before a
    token and never at the token, so every token that stays follows the law of the model that drew it.

    Attributes:
        small: name of the small model (in the paper: aligned, of any family, while the large one is a base model).
        threshold: least probability of the likeliest token, at temperature 1.
        words: of a nudge. It ends with the token that brings the white space behind its last word.
        nudge_tokens: of a nudge at most.
        stride: tokens that the main model draws ahead.
    """

    small: str = "nano-drafter"
    threshold: float = 0.4
    words: int = 1
    nudge_tokens: int = 16
    stride: int = 16

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ConfigError(
                f"threshold={self.threshold} does not work: a probability is 0 to 1 (above 1: always nudge)"
            )
        for name in ("words", "nudge_tokens", "stride"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: it must be 1 or more")

    @property
    def requires(self) -> frozenset[Capability]:
        """Drawn tokens come with their distributions, and each model goes on behind the other's."""
        return frozenset({Capability.CONTINUE, Capability.TOKENS, Capability.LOGPROBS})

    @property
    def other_models(self) -> tuple[str, ...]:
        """The small one."""
        return (self.small,)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw ahead, take back what was unsure, nudge."""
        relay = await Relay.begin(context, None, self.small)
        while relay.latest.open:
            ahead = await relay.draft(None, StepSplitter(max_tokens=self.stride), logprobs=1)
            unsure = self._first_unsure(ahead)
            if unsure is None:
                relay.accept(ahead)
            else:
                await relay.accept_first(ahead, unsure)
                await self._nudge(relay)
        return context.result([relay.latest], 0)

    async def _nudge(self, relay: Relay) -> None:
        """The next words, by the small model."""
        start = len(relay.latest.text)
        for _ in range(self.nudge_tokens):
            relay.accept(await relay.draft(self.small, _TOKEN))
            written = relay.latest.text[start:]
            if not relay.latest.open or len(_WORD_ENDS.findall(written)) >= self.words:
                return

    def _first_unsure(self, ahead: Node) -> int | None:
        """Place of the first token drawn where the likeliest one had too little probability."""
        likeliest = (math.exp(detail.top[0][1]) for detail in ahead.details)
        return next((place for place, chance in enumerate(likeliest) if chance < self.threshold), None)
