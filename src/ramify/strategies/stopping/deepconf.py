"""DeepConf: stop traces in which the model loses its confidence, let the others vote by it (arXiv:2508.15260)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramify.backends.base import Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.scoring.confidence import TOP, WINDOW, token_confidences, trace_confidence
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.steps import StepSplitter, tokens
from ramify.strategies.votes import tally, vote

PERCENTILES = {"low": 90.0, "high": 10.0}
"""Which percentile of the warm-up's lowest groups is the threshold: "low" keeps few traces, "high" most."""


@strategy("deepconf", kind="approximate", paper="arXiv:2508.15260", needs=(Capability.LOGPROBS,))
@dataclass(frozen=True)
class DeepConf(Method):
    """Confidence-filtered voting, the online form.

    A token's confidence is minus the mean log-probability of the `top` most likely tokens at its place: high where one
    token stands out. A group is `window` tokens in a row, its confidence their mean; a trace is as good as its lowest
    group. `warmup` whole traces set the threshold. The others are stopped as soon as a group falls below it, and the
    rest is not drawn once the leading answer has the share `consensus` of the vote. Traces below the threshold (those
    of the warm-up too) do not vote; the others' votes weigh their lowest group.

    Multiplying all confidences by a number changes nothing: thresholds are percentiles and votes are shares.

    Attributes:
        n: traces at most, the warm-up's included.
        warmup: whole traces drawn first.
        filter: "low" keeps about the best tenth (threshold at the 90th percentile of the warm-up), "high" about nine
            tenths (at the 10th).
        window: tokens of a group; a shorter trace is one group.
        top: tokens whose log-probabilities make a confidence.
        consensus: share of the vote that ends the run, with at least two traces voting.
        batch: traces that run together after the warm-up.
        until: how often running traces are looked at; every 64 tokens by default.
        weights: a vote weighs the "confidence" of its trace, its "rank" among those that vote, or is "equal" to others.
    """

    n: int = 32
    warmup: int = 16
    filter: Literal["low", "high"] = "low"
    window: int = WINDOW
    top: int = TOP
    consensus: float = 0.95
    batch: int = 16
    until: StepSplitter = field(default_factory=lambda: tokens(64))
    weights: Literal["confidence", "rank", "equal"] = "confidence"

    def __post_init__(self) -> None:
        for name in ("n", "warmup", "window", "top", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} does not work: it must be at least 1")
        if not 0 < self.consensus <= 1:
            raise ConfigError(f"consensus={self.consensus} does not work: it must be above 0 and at most 1")

    @property
    def requires(self) -> frozenset[Capability]:
        """Log-probabilities of drawn tokens."""
        return super().requires | {Capability.LOGPROBS}

    async def run(self, problem: Problem, context: Context) -> Result:
        """Warm up, then draw batch by batch, stopping what falls below the threshold."""
        root = await context.root()
        traces = await context.extend([root], min(self.warmup, self.n), logprobs=self.top)
        threshold = self.threshold([self._lowest(trace) for trace in traces])
        drawn = len(traces)
        self._report(context, traces, threshold)
        while drawn < self.n and not context.exhausted and not self._agreed(context, traces, threshold):
            count = min(self.batch, self.n - drawn)
            running = await context.extend([root], count, self.until, logprobs=self.top)
            drawn += count
            traces = await self._grow(context, traces, running, threshold)
        agreed = self._agreed(context, traces, threshold)
        context.skip(self.n - drawn if agreed else 0)
        return self._report(context, traces, threshold, agreed)

    def threshold(self, lowest: Sequence[float]) -> float:
        """The confidence below which a trace is stopped, from the lowest groups of the warm-up."""
        return float(np.percentile(lowest, PERCENTILES[self.filter]))

    async def _grow(self, context: Context, traces: list[Node], running: list[Node], threshold: float) -> list[Node]:
        """Grow a batch in lockstep; gives all finished traces, or those at the moment when they agree."""
        while True:
            falling = {trace.key for trace in running if trace.open and self._lowest(trace) < threshold}
            context.drop(trace for trace in running if trace.key in falling)
            traces = [*traces, *(trace for trace in running if not trace.open)]
            running = [trace for trace in running if trace.open and trace.key not in falling]
            self._report(context, traces, threshold)
            if not running or self._agreed(context, traces, threshold):
                context.drop(running)
                return traces
            running = await context.step(running, self.until, logprobs=self.top)

    def _lowest(self, trace: Node) -> float:
        """The lowest group so far; infinite while an open trace has no whole group."""
        if trace.open and trace.num_tokens < self.window:
            return math.inf
        return trace_confidence(token_confidences(trace, self.top), "lowest", self.window)

    def _weights(self, traces: Sequence[Node], threshold: float) -> FloatArray:
        """What each finished trace's vote weighs: nothing below the threshold."""
        lowest = np.array([self._lowest(trace) for trace in traces])
        votes = lowest >= threshold
        if self.weights == "confidence":
            return np.where(votes, lowest, 0.0)
        if self.weights == "rank":
            return np.where(votes, [float((lowest[votes] <= own).sum()) for own in lowest], 0.0)
        return votes.astype(np.float64)

    def _agreed(self, context: Context, traces: Sequence[Node], threshold: float) -> bool:
        weights = self._weights(traces, threshold)
        votes = [i for i, trace in enumerate(traces) if weights[i] > 0 and context.answer(trace) is not None]
        shares = tally([context.answer(traces[i]) for i in votes], weights[votes])
        return len(votes) > 1 and max(shares.values()) >= self.consensus * math.fsum(shares.values())

    def _report(self, context: Context, traces: Sequence[Node], threshold: float, certain: bool = False) -> Result:
        weights = self._weights(traces, threshold)
        lowest = [self._lowest(trace) for trace in traces]
        best = vote([context.answer(trace) for trace in traces], weights, merits=lowest)
        if best is None and traces:
            best = int(np.argmax(lowest))
        return context.result(traces, best, scores=lowest, weights=weights, certain=certain)
