"""Stochastic beam search guided by self-evaluation: the next beam is sampled, not cut off (arXiv:2305.00633).

The score of a path is the logarithm of the paper's objective, the product over its steps of ``P^lam * C^(1 - lam)``: P
the model's probability of the step, C how sure it is that the step is right. (The paper's formula for the beam has the
product itself in the exponent; for steps of many tokens that is zero to many digits, so the logarithm is used here.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramify.backends.base import Capability, FloatArray, Node
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.scoring.p_true import PTrue
from ramify.scoring.problem import Problem
from ramify.scoring.scorers import Scorer
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.search.paths import check_tree, draw_without_replacement
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of, finished, vote

LEAST_CONFIDENCE = 1e-6  # a confidence of 0 would rule a path out for good, whatever follows
LEAST_LOGPROB = -700.0  # stands for minus infinity, as a step has that the model rules out


@strategy("stochastic-beam", kind="approximate", paper="arXiv:2305.00633", needs=(Capability.LOGPROBS, "scorer"))
@dataclass(frozen=True)
class StochasticBeam(Method):
    """Beam search over steps whose survivors are drawn in proportion to ``exp(score / tau)``, without replacement.

    A level draws n continuations by one step: m from each of the n/m kept paths, all n from the root at first. The next
    beam is drawn among them, and tau shrinks by the factor alpha. A drawn path that is finished keeps its place, and
    the beam has one place less. The score of a path adds up ``lam * log P(step) + (1 - lam) * log C``.

    Attributes:
        n: paths drawn a level.
        m: continuations of a kept path; n must be a multiple of it, and n/m are kept.
        scorer: gives C, in [0, 1]; by default the model judges itself (`p-true`): its probability of "Yes" behind the
            path and a question whether it is right.
        lam: weight of the model's own probability against C.
        tau: temperature of the choice; 0 keeps the best, as beam search does.
        alpha: what tau is multiplied by after each level.
        until: where a step ends; a line by default.
        iters: levels at most.
        select: "vote" counts the answers of the finished paths (of equal counts the higher scores), "best" takes the
            highest score.
    """

    n: int = 16
    m: int = 4
    scorer: Scorer = field(default_factory=PTrue)
    lam: float = 0.5
    tau: float = 0.5
    alpha: float = 0.5
    until: StepSplitter = field(default_factory=lines)
    iters: int = 40
    select: Literal["vote", "best"] = "vote"

    def __post_init__(self) -> None:
        check_tree(self.n, self.m)
        if not 0 <= self.lam <= 1 or not 0 <= self.alpha <= 1:
            raise ConfigError(f"lam={self.lam}, alpha={self.alpha} do not work: both are from 0 to 1")
        if self.tau < 0 or self.iters < 1:
            raise ConfigError(f"tau={self.tau}, iters={self.iters} do not work: tau is at least 0, iters at least 1")
        if self.scorer.range != (0.0, 1.0):
            raise ConfigError(
                f"stochastic-beam needs confidences from 0 to 1; {type(self.scorer).__name__} gives "
                f"{self.scorer.range}: use scorer=p-true or scorer=prm"
            )

    @property
    def requires(self) -> frozenset[Capability]:
        """Log-probabilities of what is drawn, and what the scorer needs."""
        return frozenset({Capability.LOGPROBS, *self.scorer.needs})

    async def run(self, problem: Problem, context: Context) -> Result:
        """Draw, judge, sample the next beam."""
        done: list[Node] = []
        kept = [await context.root()]
        worth = {kept[0].key: 0.0}
        for level in range(self.iters):
            count = self.m if level else self.n
            drawn = await context.extend(kept, count, self.until, self.scorer, logprobs=0)
            context.retire(kept)
            confidences = await context.score(drawn, self.scorer)
            for node, confidence in zip(drawn, confidences, strict=True):
                worth[node.key] = worth[_parent(node).key] + self._gain(node, float(confidence))
            scores = np.array([worth[node.key] for node in drawn])
            places = self.n // self.m - len(done)
            chosen = [drawn[i] for i in self._sample(context, scores, places, level)]
            context.drop(node for node in drawn if node not in chosen)
            done += [node for node in chosen if not node.open]
            kept = [node for node in chosen if node.open]
            self._report(context, [*done, *kept], worth)
            if not kept:
                break
        return self._report(context, [*done, *kept], worth)

    def _gain(self, node: Node, confidence: float) -> float:
        """What the last step adds to the score of a path."""
        assert node.token_logprobs is not None
        step = math.fsum(node.token_logprobs[_parent(node).num_tokens :])
        return self.lam * max(step, LEAST_LOGPROB) + (1 - self.lam) * math.log(max(confidence, LEAST_CONFIDENCE))

    def _sample(self, context: Context, scores: FloatArray, places: int, level: int) -> list[int]:
        """The next beam: indices of `places` paths, without replacement."""
        tau = self.tau * self.alpha**level
        if tau == 0:
            return sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:places])
        return draw_without_replacement(scores / tau, places, context.uniforms("beam", level, n=len(scores)))

    def _report(self, context: Context, paths: Sequence[Node], worth: Mapping[BranchKey, float]) -> Result:
        scores = [worth[node.key] for node in paths]
        among = finished(paths)
        winner = None
        if self.select == "vote":
            winner = vote([context.answer(paths[i]) for i in among], merits=[scores[i] for i in among])
        best = best_of(scores, among) if winner is None else among[winner]
        return context.result(paths, best, scores=scores)


def _parent(node: Node) -> Node:
    assert node.parent is not None
    return node.parent
