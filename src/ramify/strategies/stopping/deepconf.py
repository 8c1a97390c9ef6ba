"""DeepConf: stop traces in which the model loses its confidence, let the others vote by it (arXiv:2508.15260)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ramify.backends.base import Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.scoring.confidence import TOP, WINDOW, group_confidences, token_confidences, trace_confidence
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
        groups = LowestGroups(self.window, self.top)
        traces = await context.extend([root], min(self.warmup, self.n), logprobs=self.top)
        ballot = Ballot(self, context, groups, self.threshold([groups.of(trace) for trace in traces]))
        drawn = len(traces)
        ballot.report(traces)
        while drawn < self.n and not context.exhausted and not ballot.agrees(traces):
            count = min(self.batch, self.n - drawn)
            running = await context.extend([root], count, self.until, logprobs=self.top)
            drawn += count
            traces = await self._grow(context, ballot, traces, running)
        certain = ballot.agrees(traces)
        context.skip(self.n - drawn if certain else 0)
        return ballot.report(traces, certain)

    def threshold(self, lowest: Sequence[float]) -> float:
        """The confidence below which a trace is stopped, from the lowest groups of the warm-up."""
        return float(np.percentile(lowest, PERCENTILES[self.filter]))

    async def _grow(self, context: Context, ballot: Ballot, traces: list[Node], running: list[Node]) -> list[Node]:
        """Grow a batch in lockstep; gives all finished traces, or those at the moment when they agree."""
        while True:
            fallen = {trace.key for trace in running if trace.open and ballot.groups.of(trace) < ballot.threshold}
            context.drop(trace for trace in running if trace.key in fallen)
            traces = [*traces, *(trace for trace in running if not trace.open)]
            running = [trace for trace in running if trace.open and trace.key not in fallen]
            ballot.report(traces)
            if not running or ballot.agrees(traces):
                context.drop(running)
                return traces
            running = await context.step(running, self.until, logprobs=self.top)


class LowestGroups:
    """The least mean confidence of `window` tokens in a row of each trace, kept up to date as traces grow.

    A trace is looked at in pieces: each is read once, with the tokens before it that a group may begin in.
    """

    def __init__(self, window: int, top: int) -> None:
        self._window = window
        self._top = top
        self._known: dict[BranchKey, tuple[FloatArray, float]] = {}

    def of(self, trace: Node) -> float:
        """The lowest group so far. A shorter trace is one group once it has ended; while it is open, there is none."""
        tail, lowest = self._read(trace)
        if len(tail) >= self._window:
            return lowest
        return math.inf if trace.open else trace_confidence(tail, "mean")

    def _read(self, node: Node | None) -> tuple[FloatArray, float]:
        """The last `window` confidences up to a node (all of them if there are fewer), and the lowest whole group."""
        if node is None:
            return np.zeros(0), math.inf
        if node.key not in self._known:
            before, lowest = self._read(node.parent)
            own = token_confidences(replace(node, parent=None), self._top) if node.details else np.zeros(0)
            joined = np.concatenate([before, own])
            if len(own) and len(joined) >= self._window:
                lowest = min(lowest, float(group_confidences(joined, self._window).min()))
            self._known[node.key] = (joined[-self._window :], lowest)
        return self._known[node.key]


@dataclass(frozen=True, slots=True)
class Ballot:
    """The vote of the finished traces: those below the threshold have no voice."""

    method: DeepConf
    context: Context
    groups: LowestGroups
    threshold: float

    def weights(self, traces: Sequence[Node]) -> FloatArray:
        """What each trace's vote weighs, [traces]."""
        lowest = np.array([self.groups.of(trace) for trace in traces])
        votes = lowest >= self.threshold
        if self.method.weights == "confidence":
            return np.where(votes, lowest, 0.0)
        if self.method.weights == "rank":
            return np.where(votes, [float((lowest[votes] <= own).sum()) for own in lowest], 0.0)
        return votes.astype(np.float64)

    def agrees(self, traces: Sequence[Node]) -> bool:
        """Whether the leading answer has the share that ends the run, of two votes at least."""
        answers, weights = [self.context.answer(trace) for trace in traces], self.weights(traces)
        voters = [i for i, answer in enumerate(answers) if weights[i] > 0 and answer is not None]
        shares = tally([answers[i] for i in voters], weights[voters])
        return len(voters) > 1 and max(shares.values()) >= self.method.consensus * math.fsum(shares.values())

    def report(self, traces: Sequence[Node], certain: bool = False) -> Result:
        """State how the vote stands."""
        lowest = [self.groups.of(trace) for trace in traces]
        weights = self.weights(traces)
        best = vote([self.context.answer(trace) for trace in traces], weights, merits=lowest)
        best = int(np.argmax(lowest)) if best is None else best
        return self.context.result(traces, best, scores=lowest, weights=weights, certain=certain)
