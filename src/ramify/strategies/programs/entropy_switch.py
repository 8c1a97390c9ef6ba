"""Entropy switch: a small model writes where it is sure, a large one where it is not (Simonds, arXiv:2502.06833)."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from ramify.backends.base import Capability, TokenDetail
from ramify.errors import ConfigError
from ramify.sampling import MAX_LOGPROBS
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.programs.relay import Relay
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter


@strategy(
    "entropy-switch",
    kind="approximate",
    paper="arXiv:2502.06833",
    needs=(Capability.CONTINUE, Capability.TOKENS, Capability.LOGPROBS, "second model"),
)
@dataclass(frozen=True)
class EntropySwitch(Method):
    """One answer in strides; each stride's model is chosen by the mean entropy of the tokens before it.

    Above the threshold the main model draws the next stride, else the small one. Nothing is verified and nothing is
    taken back, so the answer follows the law of neither. The entropy of a token is that of the distribution it was
    drawn from, at temperature 1, under the model that drew it; the tokens outside the `top` likeliest count as one.

    Attributes:
        small: name of the small model.
        threshold: nats.
        stride: tokens of a stride.
        window: the mean is over so many of the last tokens.
        top: likeliest tokens that the entropy is computed from.
        start: who draws the first stride.
    """

    small: str = "nano-drafter"
    threshold: float = 0.5
    stride: int = 4
    window: int = 4
    top: int = 20
    start: Literal["small", "large"] = "small"

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ConfigError(f"threshold={self.threshold} does not work: an entropy is 0 or more")
        for name in ("stride", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: it must be 1 or more")
        if not 1 <= self.top <= MAX_LOGPROBS:
            raise ConfigError(f"top={self.top} does not work: it is 1 to {MAX_LOGPROBS}")

    @property
    def requires(self) -> frozenset[Capability]:
        """Drawn tokens come with their distributions, and each model goes on behind the other's."""
        return frozenset({Capability.CONTINUE, Capability.TOKENS, Capability.LOGPROBS})

    @property
    def other_models(self) -> tuple[str, ...]:
        """The small one."""
        return (self.small,)

    async def run(self, problem: Problem, context: Context) -> Result:
        """Stride by stride."""
        relay = await Relay.begin(context, None, self.small)
        model = self.small if self.start == "small" else None
        recent: deque[float] = deque(maxlen=self.window)
        while relay.latest.open:
            stride = await relay.draft(model, StepSplitter(max_tokens=self.stride), logprobs=self.top)
            relay.accept(stride)
            recent.extend(entropy(detail) for detail in stride.details)
            unsure = bool(recent) and math.fsum(recent) / len(recent) > self.threshold
            model = None if unsure else self.small
        return context.result([relay.latest], 0)


def entropy(detail: TokenDetail) -> float:
    """Entropy in nats of a distribution known by its likeliest tokens, the rest counted as one: the least it can be."""
    chances = [math.exp(logprob) for _, logprob in detail.top if logprob > -math.inf]
    rest = 1 - math.fsum(chances)
    parts = [*chances, rest] if rest > 1e-9 else chances  # less is rounding
    return max(0.0, -math.fsum(chance * math.log(chance) for chance in parts if chance > 0))
