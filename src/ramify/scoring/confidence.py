"""How sure a model was while it wrote: scores from what it knew of each token when it drew it. They cost no tokens.

Self-certainty looks at the whole distribution, DeepConf at its top, inverse perplexity at the drawn token alone. All of
it comes with the draw (`logprobs=k`); a node drawn without it raises and is never scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ramify.backends.base import Backend, Capability, FloatArray, Node, path_details
from ramify.errors import ConfigError, ScorerError
from ramify.registry import register
from ramify.sampling import MAX_LOGPROBS
from ramify.scoring.logprob import mean_logprob
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Reading, ScoreBatch, Scorer

TOP = 20
"""Most likely tokens that DeepConf averages over, as in its paper."""
WINDOW = 2048
"""Tokens of a group in DeepConf's paper, whose traces have tens of thousands; a shorter answer is one group."""
BOTTOM = 0.1
"""Share of the least confident groups that "bottom" averages, from the paper."""
SUREST = 100.0
"""Nats: no token counts as surer. Keeps a token that the model rules out (minus infinity) from deciding alone."""

Measure = Literal["mean", "tail", "bottom", "lowest"]


@runtime_checkable
class DetailedScorer(Scorer, Protocol):
    """A scorer that reads `Node.details`."""

    @property
    def logprobs(self) -> int:
        """The `logprobs` that its nodes have to be drawn with."""
        ...


def details_for(scorer: Scorer) -> dict[str, Any]:
    """Sampling options under which nodes have to be drawn so that a scorer can read them, for `Context.extend`."""
    return {"logprobs": scorer.logprobs} if isinstance(scorer, DetailedScorer) else {}


@dataclass(frozen=True, slots=True)
class _Free:
    """Base of the scorers here: they read what came with the draw."""

    @property
    def needs(self) -> frozenset[Capability]:
        """Log-probabilities of drawn tokens."""
        return frozenset({Capability.LOGPROBS})

    def cost(self, reading: Reading) -> int:
        """No tokens."""
        return 0


@register(
    "self-certainty",
    kind="scorer",
    trade="approximate",
    needs=(Capability.LOGPROBS,),
    paper="arXiv:2502.18581",
    page="techniques/scorers.md",
)
@dataclass(frozen=True, slots=True)
class SelfCertainty(_Free):
    """How far the model's distributions were from uniform, in nats a token; higher is surer.

    It is the mean over tokens of the cross-entropy of the model's distribution under the uniform one. The paper's
    number is this one less the logarithm of the vocabulary's size, a constant that no ranking depends on.
    """

    @property
    def range(self) -> tuple[float, float]:
        """From 0, without an upper end."""
        return (0.0, math.inf)

    @property
    def logprobs(self) -> int:
        """One: any number above 0 brings the mean over the vocabulary."""
        return 1

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One mean a node. Raises `ScorerError` for a node that was drawn without details."""
        return ScoreBatch(np.array([self_certainty(node) for node in nodes], dtype=np.float64))


@register(
    "deepconf",
    kind="scorer",
    trade="approximate",
    needs=(Capability.LOGPROBS,),
    paper="arXiv:2508.15260",
    page="techniques/scorers.md",
)
@dataclass(frozen=True, slots=True)
class DeepConf(_Free):
    """Confidence of an answer: of each token minus the mean log-probability of the `top` likeliest, averaged by groups.

    Attributes:
        measure: "mean" of all tokens; "tail": of the last `window` tokens; "bottom": mean of the least confident
            tenth of the groups; "lowest": the least confident group. A group is every run of `window` tokens.
        window: tokens of a group; a shorter answer is one group.
        top: likeliest tokens averaged over.
    """

    measure: Measure = "tail"
    window: int = WINDOW
    top: int = TOP

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"window={self.window} does not work: a group has at least one token")
        if not 1 <= self.top <= MAX_LOGPROBS:
            raise ConfigError(f"top={self.top} does not work: choose from 1 to {MAX_LOGPROBS}")

    @property
    def range(self) -> tuple[float, float]:
        """From 0, without an upper end."""
        return (0.0, math.inf)

    @property
    def logprobs(self) -> int:
        """As many as are averaged over."""
        return self.top

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One confidence a node. Raises `ScorerError` for a node that was drawn without enough details."""
        found = [trace_confidence(token_confidences(node, self.top), self.measure, self.window) for node in nodes]
        return ScoreBatch(np.array(found, dtype=np.float64))


@register(
    "inverse-perplexity",
    kind="scorer",
    trade="approximate",
    needs=(Capability.LOGPROBS,),
    page="techniques/scorers.md",
)
@dataclass(frozen=True, slots=True)
class InversePerplexity(_Free):
    """The geometric mean of the answer's token probabilities, from 0 to 1: `logprob` on a scale that votes can use."""

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to 1."""
        return (0.0, 1.0)

    async def score(self, nodes: Sequence[Node], problem: Problem, backend: Backend) -> ScoreBatch:
        """One number a node. Raises `ScorerError` for a node whose log-probabilities are not known."""
        return ScoreBatch(np.array([math.exp(mean_logprob(node)) for node in nodes], dtype=np.float64))


def self_certainty(node: Node) -> float:
    """Mean over a node's drawn tokens of minus the mean log-probability of the vocabulary; 0 without tokens.

    Raises:
        ScorerError: the node was drawn without details.
    """
    values = [min(SUREST, -detail.mean_logprob) for detail in _details(node, 1)]
    return max(0.0, math.fsum(values) / len(values)) if values else 0.0


def token_confidences(node: Node, top: int = TOP) -> FloatArray:
    """Minus the mean log-probability of the `top` likeliest tokens at each drawn token, [tokens] nats.

    Raises:
        ScorerError: the node was drawn without details.
    """
    found = []
    for detail in _details(node, top):
        likeliest = [min(SUREST, -logprob) for _, logprob in detail.top[:top]]
        found.append(max(0.0, math.fsum(likeliest) / len(likeliest)))
    return np.array(found, dtype=np.float64)


def group_confidences(confidences: FloatArray, window: int = WINDOW) -> FloatArray:
    """Means of every run of `window` tokens, [groups]; one group if there are no more tokens than that."""
    if len(confidences) <= window:
        return np.array([confidences.mean()] if len(confidences) else [], dtype=np.float64)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(confidences, window).mean(axis=1), dtype=np.float64)


def trace_confidence(confidences: FloatArray, measure: Measure = "tail", window: int = WINDOW) -> float:
    """One number from the confidences of an answer's tokens (see `DeepConf`); 0 without tokens."""
    if len(confidences) == 0:
        return 0.0
    if measure == "mean":
        return float(confidences.mean())
    if measure == "tail":
        return float(confidences[-window:].mean())
    groups = np.sort(group_confidences(confidences, window))
    count = 1 if measure == "lowest" else max(1, int(BOTTOM * len(groups)))
    return max(0.0, float(groups[:count].mean()))


def _details(node: Node, top: int) -> tuple[Any, ...]:
    details = path_details(node)
    if node.num_tokens > 0 and (not details or not all(detail.top for detail in details)):
        raise ScorerError(f"the node carries no details of its tokens: draw it with logprobs={top}")
    return details
