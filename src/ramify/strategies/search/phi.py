"""Phi-decoding: choose a step by the futures it leads to, and by how many futures agree (arXiv:2503.13288)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ramify.backends.base import Capability, Node
from ramify.errors import ConfigError
from ramify.randomness import BranchKey
from ramify.scoring.problem import Problem
from ramify.strategies.kernel.context import Context
from ramify.strategies.kernel.result import Result
from ramify.strategies.registry import Method, strategy
from ramify.strategies.resampling import softmax
from ramify.strategies.search.clusters import k_means, shares, tf_idf
from ramify.strategies.search.paths import draw_without_replacement
from ramify.strategies.steps import StepSplitter, lines
from ramify.strategies.votes import best_of, finished


@strategy("phi", kind="approximate", paper="arXiv:2503.13288", needs=(Capability.LOGPROBS,))
@dataclass(frozen=True)
class Phi(Method):
    """Foresight sampling: of m candidate steps a beam, those whose simulated future is likely and agrees with others.

    Each level draws m candidates from each of n beams (n * m from the root) and

    1. drops those whose mean log-probability is more than `sigma` standard deviations below the mean;
    2. draws a future of each, up to `foresight` tokens, and takes its mean log-probability F; the advantage A of a
       candidate is F less that of its beam one level before;
    3. clusters the futures; C is the share of a candidate's own cluster;
    4. draws the next beams without replacement from the mean of ``softmax(A / tau)`` and ``softmax(C)``, among those
       with A above 0 if they are enough;
    5. stops looking ahead when the largest cluster holds more than `agree` of the futures (after `min_steps` levels),
       or when all of several chosen steps are the same. Then each beam is finished, and one of them drawn as in 4.

    Futures are thrown away, and counted as discarded. A candidate that is finished is its own future, and keeps its
    place in the beam once chosen.

    Attributes:
        n: beams.
        m: candidate steps drawn from each.
        until: where a step ends; a line by default.
        foresight: tokens of a future at most.
        sigma: standard deviations below the mean at which a candidate is dropped before it gets a future.
        clusters: of the futures' texts (TF-IDF, k-means), at most.
        by: "text" clusters the futures by their words, "answer" by the answers they come to.
        agree: share of the largest cluster above which the search stops looking ahead.
        min_steps: levels before that may happen.
        tau: temperature of the advantages.
        iters: levels at most.
    """

    n: int = 4
    m: int = 4
    until: StepSplitter = field(default_factory=lines)
    foresight: int = 64
    sigma: float = 1.0
    clusters: int = 3
    by: Literal["text", "answer"] = "text"
    agree: float = 0.7
    min_steps: int = 4
    tau: float = 0.1
    iters: int = 40

    def __post_init__(self) -> None:
        if min(self.n, self.m, self.foresight, self.clusters, self.iters) < 1:
            raise ConfigError(
                f"n={self.n}, m={self.m}, foresight={self.foresight}, clusters={self.clusters}, iters={self.iters} do "
                "not work: each is at least 1"
            )
        if self.tau <= 0 or self.sigma < 0 or not 0 <= self.agree <= 1:
            raise ConfigError(
                f"tau={self.tau}, sigma={self.sigma}, agree={self.agree} do not work: tau is above 0, sigma at "
                "least 0, agree from 0 to 1"
            )

    @property
    def requires(self) -> frozenset[Capability]:
        """Log-probabilities of what is drawn."""
        return frozenset({Capability.LOGPROBS})

    async def run(self, problem: Problem, context: Context) -> Result:
        """Look ahead and choose, step by step; finish the beams; choose once more."""
        root = await context.root()
        done: list[Node] = []
        beams = [root]
        foresight: dict[BranchKey, float] = {root.key: 0.0}
        for level in range(self.iters):
            drawn = await context.extend(beams, self.m if level else self.n * self.m, self.until, logprobs=0)
            context.retire(beams)
            places = self.n - len(done)
            steps = self._prune(context, drawn, places, level)
            futures = await self._look_ahead(context, steps)
            foresight |= {step.key: own_logprob(future) for step, future in zip(steps, futures, strict=True)}
            gains = [foresight[step.key] - foresight[_parent(step).key] for step in steps]
            chosen, agreement = self._choose(context, futures, gains, places, level)
            survivors = [steps[i] for i in chosen]
            context.drop(node for node in (*steps, *futures) if node not in survivors)
            done += [node for node in survivors if not node.open]
            beams = [node for node in survivors if node.open]
            self._report(context, [*done, *beams], foresight)
            certain = level + 1 >= self.min_steps and agreement > self.agree
            same = len(survivors) > 1 and len({own_text(node) for node in survivors}) == 1
            if not beams or certain or same:
                break
        return await self._finish(context, done, beams, foresight)

    def _prune(self, context: Context, drawn: Sequence[Node], places: int, level: int) -> list[Node]:
        """In-width pruning: the candidates worth a future, at least as many as there are places."""
        sure = np.array([own_logprob(node) for node in drawn])
        kept = [i for i in range(len(drawn)) if sure[i] >= sure.mean() - self.sigma * sure.std() - 1e-9]
        others = [i for i in range(len(drawn)) if i not in kept]
        missing = min(places - len(kept), len(others))
        if missing > 0:
            marks = context.uniforms("refill", level, n=len(others))
            kept += [others[i] for i in draw_without_replacement(sure[others], missing, marks)]
        context.drop(node for i, node in enumerate(drawn) if i not in kept)
        return [drawn[i] for i in sorted(kept)]

    async def _look_ahead(self, context: Context, steps: Sequence[Node]) -> list[Node]:
        """A future of each step; a finished one (and one that the budget leaves without) stands for itself."""
        going = [step for step in steps if step.open]
        if not going:
            return list(steps)
        ahead = await context.extend(going, 1, StepSplitter(max_tokens=self.foresight), logprobs=0)
        futures = {start.key: end for start, end in zip(going, ahead, strict=False)}  # fewer where the budget ends
        return [futures.get(step.key, step) for step in steps]

    def _choose(
        self, context: Context, futures: Sequence[Node], gains: Sequence[float], places: int, level: int
    ) -> tuple[list[int], float]:
        """Indices of the chosen steps, in launch order, and the share of the largest cluster of futures."""
        advantages, alignment = np.array(gains), shares(self._labels(context, futures, level))
        weights = 0.5 * softmax(advantages / self.tau) + 0.5 * softmax(alignment)
        better = [i for i in range(len(futures)) if advantages[i] > 0]
        among = better if len(better) >= places else list(range(len(futures)))
        marks = context.uniforms("choose", level, n=len(among))
        chosen = draw_without_replacement(np.log(weights[among]), places, marks)
        return [among[i] for i in chosen], float(alignment.max())

    def _labels(self, context: Context, futures: Sequence[Node], level: int) -> list[Hashable]:
        """The cluster of each future; one that comes to no answer agrees with no other one."""
        if self.by == "answer":
            answers = [context.answer(future) for future in futures]
            return [("alone", i) if answer is None else ("answer", answer) for i, answer in enumerate(answers)]
        vectors = tf_idf([own_text(future) for future in futures])
        return list(k_means(vectors, self.clusters, context.uniform("clusters", level)).tolist())

    async def _finish(
        self, context: Context, done: list[Node], beams: list[Node], foresight: dict[BranchKey, float]
    ) -> Result:
        """Draw each beam to its end and choose once more."""
        ends = await context.extend(beams, logprobs=0) if beams else []
        context.retire(beams)
        paths = [*done, *ends]
        foresight |= {end.key: own_logprob(end) for end in ends}
        gains = [*(0.0 for _ in done), *(foresight[end.key] - foresight[_parent(end).key] for end in ends)]
        (best,), _ = self._choose(context, paths, gains, 1, self.iters)
        return self._report(context, paths, foresight, best)

    def _report(
        self, context: Context, paths: Sequence[Node], foresight: dict[BranchKey, float], best: int | None = None
    ) -> Result:
        scores = [foresight[node.key] for node in paths]
        return context.result(paths, best_of(scores, finished(paths)) if best is None else best, scores=scores)


def own_logprob(node: Node) -> float:
    """Mean log-probability of the tokens that the node's own extension drew."""
    assert node.token_logprobs is not None
    own = node.token_logprobs[_parent(node).num_tokens :]
    return math.fsum(own) / len(own) if own else 0.0


def own_text(node: Node) -> str:
    """The text that the node's own extension added."""
    return node.text.removeprefix(_parent(node).text)


def _parent(node: Node) -> Node:
    assert node.parent is not None
    return node.parent
